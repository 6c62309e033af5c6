"""A catalogue that grows after training, with the run's own tokenizer."""

import ml_collections
import numpy as np
import pytest
import small

from gr2_jax import config as config_lib
from gr2_jax.data import dataset
from gr2_jax.sid import assign
from gr2_jax.stages import new_items, sid

ITEMS, WIDTH = 40, 12


def _items(numbers):
  return [dataset.Item(f'i{i}', f'title {i}') for i in numbers]


def _vectors(count, seed):
  """Points around eight topics that all share."""
  topics = np.random.default_rng(9).normal(size=(8, WIDTH))
  rng = np.random.default_rng(seed)
  noise = 0.3 * rng.normal(size=(count, WIDTH))
  return (topics[rng.integers(0, 8, count)] + noise).astype(np.float32)


@pytest.fixture(params=['rqvae', 'kmeans'])
def finished(request, tmp_path, monkeypatch):
  made = dataset.from_sequences('made-up', _items(range(ITEMS)), {'u': [0, 1]})
  monkeypatch.setattr(dataset, 'load', lambda directory: made)
  np.save(tmp_path / 'vectors.npy', _vectors(ITEMS, 0))
  run = tmp_path / 'run'
  (run / 'data').mkdir(parents=True)
  config = ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {}},
      'sid': {
        'levels': 3,
        'codes': 8,
        'embeddings': str(tmp_path / 'vectors.npy'),
        'quantiser': request.param,
        'hidden': [16],
        'latent': 8,
        'epochs': 6,
        'batch_size': 16,
        'warmup_epochs': 1,
      },
    }
  )
  config_lib.save(config, run / 'config.json')
  small.finish(run, 'data', data=config.data)
  sid.run(config, run)
  return run


def test_it_quantises_its_own_catalogue_as_in_training(finished):
  tokenizer = new_items.load(finished)
  nearest = tokenizer.nearest(_vectors(ITEMS, 0))
  # Colliding items drew another last code; the rest is the quantiser's.
  np.testing.assert_array_equal(nearest[:, :-1], tokenizer.raw[:, :-1])
  alike = (nearest == tokenizer.raw).all(1)
  unique = assign.uniqueness(nearest)
  assert alike.mean() >= unique - 1e-9


def test_it_grows_tenfold_and_touches_nothing(finished):
  tokenizer = new_items.load(finished)
  before = tokenizer.sids.copy()
  for step in range(1, 10):
    items = _items(range(step * ITEMS, (step + 1) * ITEMS))
    _, report = tokenizer.assign(items, _vectors(ITEMS, step))
    assert report['items'] == (step + 1) * ITEMS
    assert report['collisions'] == 0
    assert 0 < report['uniqueness'] <= 1
  np.testing.assert_array_equal(tokenizer.sids[:ITEMS], before)
  assert assign.collisions(tokenizer.sids) == 0
  with np.load(finished / 'sid' / 'sids.npz') as stored:
    np.testing.assert_array_equal(stored['sids'], before)


def test_the_order_of_new_items_does_not_matter(finished):
  items, vectors = _items(range(100, 140)), _vectors(40, 5)
  sids, _ = new_items.load(finished).assign(items, vectors)
  order = np.random.default_rng(0).permutation(40)
  shuffled, _ = new_items.load(finished).assign(
    [items[i] for i in order], vectors[order]
  )
  np.testing.assert_array_equal(shuffled, sids[order])


def test_mistakes_are_named(finished, tmp_path):
  tokenizer = new_items.load(finished)
  with pytest.raises(ValueError, match="already: \\['i3'\\]"):
    tokenizer.assign(_items([99, 3]), _vectors(2, 0))
  with pytest.raises(ValueError, match='3 embeddings for 2 items'):
    tokenizer.assign(_items([98, 99]), _vectors(3, 0))
  with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
    new_items.load(tmp_path / 'nothing')
