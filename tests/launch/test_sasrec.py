import pathlib

import ml_collections
import numpy as np
import pytest

from launch import sasrec

BEAUTY = (
  pathlib.Path(__file__).resolve().parents[3] / 'shared/data/amazon_beauty_2014'
)


def _config(directory, **settings):
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {
        'name': 'test',
        'kind': 'generic',
        'dir': str(directory),
        'core': 0,
        'split': {'kind': 'leave_one_out'},
      },
      'candidates': {'sasrec': settings},
    }
  )


def test_it_measures_by_the_protocol_of_the_literature(tmp_path):
  rng = np.random.default_rng(0)
  rows = [
    f'u{u:02},i{(start + t) % 30},{t}\n'
    for u, start in enumerate(rng.integers(30, size=40))
    for t in range(8)
  ]
  items = [f'{{"item_id": "i{i}", "title": "t{i}"}}\n' for i in range(30)]
  (tmp_path / 'interactions.csv').write_text(
    'user_id,item_id,timestamp\n' + ''.join(rows)
  )
  (tmp_path / 'items.jsonl').write_text(
    ''.join(line.replace('}', ', "categories": ["c"]}') for line in items)
  )
  config = _config(
    tmp_path,
    width=8,
    layers=1,
    mlp_dim=8,
    batch_size=8,
    max_epochs=2,
    every=1,
  )
  found = sasrec.measure(config, tmp_path / 'run')
  assert found['sasrec']['test']['n'] == found['sasrec']['valid']['n'] == 40
  assert found['popularity']['test']['n'] == 40
  # 40 users of six training places each fill 240 of 8 x 64 places.
  assert found['steps'] == 2 and len(found['validations']) == 2


@pytest.mark.slow
def test_beauty_reaches_the_published_recall(tmp_path):
  """Ten minutes on two cores. Published: Recall@10 0.069 to 0.082."""
  if not BEAUTY.exists():
    pytest.skip(f'{BEAUTY} is not here')
  found = sasrec.measure(_config(BEAUTY), tmp_path)
  assert found['sasrec']['test']['n'] == 22_363
  assert found['sasrec']['test']['recall@10'] >= 0.065
  assert abs(found['popularity']['test']['recall@10'] - 0.0114) < 0.001
