"""Bars are hidden where somebody asks for it."""

from gr2_jax import progress


def test_a_bar_says_compiling_until_the_first_unit_is_done(capsys):
  with progress.bar(total=2, desc='steps', compiles=True) as bar:
    said = capsys.readouterr().err
    assert 'steps' in said and said.rstrip().endswith('compiling]')
    bar.set_postfix_str('loss 1.5', refresh=False)
    bar.update()
    bar.update()
  assert 'loss 1.5' in capsys.readouterr().err
  with progress.bar(total=1, compiles=True) as bar:
    bar.update()
    bar.refresh()
    assert 'compiling' not in capsys.readouterr().err.split('\r')[-1]
  with progress.bar(total=1) as bar:
    bar.update()
  assert 'compiling' not in capsys.readouterr().err


def test_bars_are_hidden_inside(capsys):
  with progress.hidden():
    for _ in progress.bar(range(3), desc='silent'):
      pass
    with progress.hidden(False), progress.bar(total=1, desc='inner') as bar:
      bar.update()
  assert capsys.readouterr().err == ''
  with progress.hidden(False):
    for _ in progress.bar(range(3), desc='shown'):
      pass
  assert 'shown' in capsys.readouterr().err
