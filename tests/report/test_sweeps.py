"""The page of a sweep: which lines it draws, and their means by hand."""

import xml.etree.ElementTree as ET

from gr2_jax.report import sweeps


def _run(name, seed, steps, values):
  return {
    'name': name,
    'seed': seed,
    'changes': {'rl.alpha': 0.1 if name == 'a<' else 0.2},
    'curves': {'rl.reward': [steps, values]},
  }


def _document():
  return {
    'base': {'data': {'name': 'made & up'}},
    'runs': [
      _run('a<', 0, [1, 2, 3], [0.0, 0.5, 1.0]),
      _run('a<', 1, [1, 2], [1.0, 0.5]),
      _run('b', 0, [1, 2], [0.2, 0.3]),
    ],
  }


def test_means_over_seeds_and_every_seed():
  page = sweeps.build(_document())
  assert 'made &amp; up' in page and 'a&lt;' in page and '<b>' not in page
  # Of a, the two steps that both seeds have; then each seed as it is.
  for name, series, points in (
    ('mean/rl.reward', 2, 4),
    ('a&lt;/rl.reward', 2, 5),
    ('b/rl.reward', 1, 2),
  ):
    drawn = f'data-chart="{name}" data-series="{series}"'
    assert f'{drawn} data-points="{points}"' in page
  assert 'a&lt;: 0.5 at 1' in page and 'a&lt;: 0.5 at 2' in page
  assert 'rl.alpha=0.1' in page and 'rl.alpha=0.2' in page


def test_the_picture_stands_alone():
  drawn = ET.fromstring(sweeps.picture(_document(), ['rl.reward'] * 2))
  name = '{http://www.w3.org/2000/svg}'
  assert drawn.tag == f'{name}svg'
  assert len(drawn.findall(f'{name}svg')) == 2
  assert len(drawn.findall(f'{name}svg/{name}polyline')) == 4
  texts = [text.text for text in drawn.findall(f'{name}text')]
  assert texts == ['rl.reward', 'rl.reward', 'a<', 'b']
