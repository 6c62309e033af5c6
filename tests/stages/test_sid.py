"""The SID stage on made-up items with precomputed vectors."""

import ml_collections
import numpy as np
import pytest

from configs import quickstart
from gr2_jax import files
from gr2_jax.data import dataset, stored
from gr2_jax.sid import assign, index, steps
from gr2_jax.stages import data, sid

ITEMS = 40


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A finished data stage, and vectors with twins among them."""
  items = [dataset.Item(f'i{i}', f'title {i}') for i in range(ITEMS)]
  made = dataset.Dataset(
    name='made-up',
    items=items,
    user_ids=['u'],
    flat=np.arange(9, dtype=np.int32),
    offsets=np.array([0, 9]),
    timestamps=np.arange(9, dtype=np.int64),
  )
  monkeypatch.setattr(stored, 'load', lambda directory: made)
  vectors = np.random.default_rng(0).normal(size=(ITEMS, 12))
  # Five items with one vector: no quantiser can tell them apart.
  vectors[10:15] = vectors[10]
  np.save(tmp_path / 'vectors.npy', vectors.astype(np.float32))
  for name in ('one', 'two'):
    (tmp_path / name / 'data').mkdir(parents=True)
    files.write_json(tmp_path / name / 'data' / 'DONE', {'fingerprint': 'data'})
  config = ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 2, 'tensor': 1},
      'data': {'split': {}},
      'sid': {
        'levels': 3,
        'codes': 8,
        'embeddings': str(tmp_path / 'vectors.npy'),
        'hidden': [16],
        'latent': 8,
        'epochs': 6,
        'batch_size': 16,
        'warmup_epochs': 1,
        'check_every': 2,
      },
    }
  )
  return tmp_path, config


def test_artifacts_resume_and_redo(world, killed_after):
  path, config = world
  summary = sid.run(config, path / 'one')
  with np.load(path / 'one' / 'sid' / 'sids.npz') as stored:
    raw, sids = stored['raw'], stored['sids']
  assert sids.shape == (ITEMS, 3) and sids.dtype == np.int32
  assert summary['uniqueness'] == assign.uniqueness(raw)
  assert summary['uniqueness'] > summary['uniqueness_nearest']
  assert summary['collisions'] == assign.collisions(sids) == 0
  for name in ('perplexity', 'dead_codes'):
    assert len(summary[name]) == 3
  # Noise in twelve dimensions: little is learned in six epochs.
  assert 0 < summary['mse'] < 1.5
  assert index.build(sids, 8).num_items == ITEMS
  assert not (path / 'one' / 'sid' / 'embeddings.npy').exists()

  with killed_after(steps, 'block', 3):
    sid.run(config, path / 'two')
  again = sid.run(config, path / 'two')
  assert again | {'seconds': 0} == summary | {'seconds': 0}
  for name in ('sids.npz', 'metrics.jsonl'):
    one, two = (path / run / 'sid' / name for run in ('one', 'two'))
    assert one.read_bytes() == two.read_bytes(), name

  # Other content under the same path is another input.
  vectors = np.load(path / 'vectors.npy')[::-1]
  np.save(path / 'vectors.npy', vectors)
  with pytest.raises(ValueError, match='files that it reads .*--redo'):
    sid.run(config, path / 'one')
  sid.run(config, path / 'one', redo=True)
  with np.load(path / 'one' / 'sid' / 'sids.npz') as stored:
    assert (stored['raw'] != raw).any()


def test_vectors_that_do_not_fit(world, monkeypatch):
  path, config = world
  monkeypatch.setenv('HOME', str(path))
  config.sid.embeddings = '~/vectors.npy'
  np.save(path / 'vectors.npy', np.zeros((3, 12), np.float32))
  with pytest.raises(ValueError, match='3 rows and no ids.*of the 40 items'):
    sid.run(config, path / 'one')
  config.sid.embeddings = str(path / 'absent.npy')
  with pytest.raises(FileNotFoundError, match=r'absent.npy.* is no file'):
    sid.run(config, path / 'one')


@pytest.mark.slow
def test_movielens_gets_unique_and_well_used_ids(tmp_path):
  config = quickstart.get_config()
  data.run(config, tmp_path)
  summary = sid.run(config, tmp_path)
  assert summary['uniqueness'] >= 0.99
  assert summary['collisions'] == 0
  assert min(summary['perplexity']) > 0.7 * 64
  assert summary['dead_codes'] == [0, 0, 0, 0]
  # The titles and genres alone part 98.9 % of the items.
  assert summary['uniqueness_nearest'] > 0.97
  assert summary['mse'] < 0.45


@pytest.mark.parametrize(
  'change',
  [
    {'quantiser': 'kmeans'},
    {'last_level': 'sinkhorn'},
    {'last_level': 'nearest'},
    {'contrastive': 0.1},
    {'ema': False, 'init': 'random', 'diversity': 0.1, 'dead_reset': 2},
  ],
  ids=str,
)
def test_every_technique_ends_without_collisions(world, change):
  path, config = world
  config.sid.update(change)
  summary = sid.run(config, path / 'one')
  assert summary['collisions'] == 0
  if change.get('last_level') == 'nearest':
    assert summary['uniqueness'] == summary['uniqueness_nearest']
  else:
    assert summary['uniqueness'] >= summary['uniqueness_nearest']
