"""Bars are hidden where somebody asks for it."""

from gr2_jax import progress


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
