"""A catalogue that grows after training, with the run's own tokenizer."""

import dataclasses
import pathlib
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.data import dataset, stored
from gr2_jax.ranker import catalogues, new_items
from gr2_jax.sid import assign
from gr2_jax.stages import sid
from tests.integration import small

ITEMS, WIDTH = 40, 12
# The command over the made-up catalogue.
COMMAND = f"""
from absl import app
from gr2_jax.data import dataset, stored
from launch import new_items
items = [dataset.Item(f'i{{i}}', f'title {{i}}') for i in range({ITEMS})]
made = dataset.from_sequences('made-up', items, {{'u': [0, 1]}})
stored.load = lambda directory: made
app.run(new_items.main)
"""


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
  monkeypatch.setattr(stored, 'load', lambda directory: made)
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
  with np.load(finished / 'sid' / 'sids.npz') as arrays:
    np.testing.assert_array_equal(arrays['sids'], before)


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
  # NumPy would repeat a single number for each of the run's.
  with pytest.raises(ValueError, match='are 1 wide, those of this run'):
    tokenizer.assign(_items([98, 99]), _vectors(2, 0)[:, :1])
  with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
    new_items.load(tmp_path / 'nothing')


def test_semantic_ids_of_a_list_do_not_join_the_catalogue(finished):
  tokenizer = new_items.load(finished)
  items, before = _items([98, 99]), tokenizer.sids
  codes = tokenizer.codes(items, _vectors(2, 3))
  _, sids = tokenizer.distinct(items, codes, before)
  assert tokenizer.sids is before and len(tokenizer.item_ids) == ITEMS
  again, _ = tokenizer.assign(items, _vectors(2, 3))
  np.testing.assert_array_equal(again, sids)
  assert tokenizer.item_ids[-2:] == ['i98', 'i99']
  with pytest.raises(ValueError, match='vectors of its own .*--embeddings'):
    tokenizer.codes(items)


@pytest.mark.parametrize('finished', ['kmeans'], indirect=True)
def test_texts_are_quantised_in_parts(finished, monkeypatch):
  tokenizer = new_items.load(finished)
  tokenizer.config = dataclasses.replace(tokenizer.config, embeddings='')
  vectors, asked = _vectors(10, 4), []

  def embed(items):
    asked.append(len(items))
    return vectors[[int(item.item_id[1:]) for item in items]]

  tokenizer.__dict__['_embed'] = embed
  monkeypatch.setattr(new_items, 'PART', 4)
  found = tokenizer.codes(_items(range(10)))
  assert asked == [4, 4, 2]
  np.testing.assert_array_equal(found, tokenizer.nearest(vectors))


@pytest.mark.parametrize('finished', ['kmeans'], indirect=True)
def test_others_may_quantise_new_texts(finished):
  tokenizer = new_items.load(finished)
  items = _items([98, 99])

  def quantise(given):
    assert given == items
    return tokenizer.nearest(_vectors(2, 3))

  with pytest.raises(ValueError, match='vectors of its own .*--embeddings'):
    tokenizer.assign(items, quantise=quantise)
  expected, _ = new_items.load(finished).assign(items, _vectors(2, 3))
  tokenizer.config = dataclasses.replace(tokenizer.config, embeddings='')
  with pytest.raises(ValueError, match="already: \\['i3'\\]"):
    tokenizer.assign(_items([3]), quantise=None)
  found, _ = tokenizer.assign(items, quantise=quantise)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('finished', ['kmeans'], indirect=True)
def test_the_command_ends_in_a_catalogue_that_grows(finished, tmp_path):
  paths = [tmp_path / f'{name}.jsonl' for name in ('first', 'both')]

  def run(numbers, output, *more):
    made = tmp_path / 'items.jsonl', tmp_path / 'new.npy'
    files.write_jsonl(
      made[0],
      (
        {'item_id': f'i{n}', 'title': f'title {n}', 'categories': ['A', 'B']}
        for n in numbers
      ),
    )
    np.save(made[1], _vectors(len(numbers), numbers[0]))
    done = subprocess.run(
      [
        *(sys.executable, '-c', COMMAND, f'--workdir={finished}'),
        *(f'--items={made[0]}', f'--embeddings={made[1]}'),
        *(f'--output={output}', *more),
      ],
      capture_output=True,
      text=True,
      cwd=pathlib.Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  run(range(40, 43), paths[0])
  said = run(range(43, 45), paths[1], f'--catalogue={paths[0]}')
  assert "'items': 45" in said
  first, both = ([*files.read_jsonl(path)] for path in paths)
  assert both[:3] == first
  assert [row['item_id'] for row in both] == [f'i{n}' for n in range(40, 45)]
  assert both[0]['categories'] == ['A', 'B']
  with np.load(finished / 'sid' / 'sids.npz') as arrays:
    sids = arrays['sids']
  ids = [f'i{n}' for n in range(ITEMS)]
  found = catalogues.read(paths[1], ids, sids, 8)
  assert found.items[4] == dataset.Item('i44', 'title 44', ('A', 'B'))
  assert found.sids.tolist() == [row['sid'] for row in both]
  assert assign.collisions(np.concatenate([sids, found.sids])) == 0


@pytest.mark.parametrize(
  'change, message',
  [
    ({'tokenizer': 'other'}, "catalogue.jsonl:2: tokenizer is 'other'"),
    ({'sid': [0, 1]}, r'sid is \[0, 1\], not 3 codes below 8'),
    ({'sid': [0, 1, 8]}, 'codes below 8'),
    ({'sid': [0, 0, 0]}, r'its semantic ID \(0, 0, 0\) is there already'),
    ({'item_id': 'i3'}, "the item 'i3' or"),
    ({'title': None, 'categories': 3}, 'categories is 3'),
  ],
)
def test_a_catalogue_that_does_not_fit_the_run_is_refused(
  tmp_path, change, message
):
  sids = np.array([[0, 0, 0], [1, 0, 0]])
  path = tmp_path / 'made' / 'catalogue.jsonl'
  rows = np.array([[2, 0, 0], [3, 0, 0]])
  catalogues.write(path, _items([8, 9]), rows, catalogues.stamp(sids))
  assert len(catalogues.read(path, ['i3', 'i4'], sids, 8).items) == 2
  first, second = files.read_jsonl(path)
  files.write_jsonl(path, [first, {**second, **change}])
  with pytest.raises(ValueError, match=message):
    catalogues.read(path, ['i3', 'i4'], sids, 8)
  path.write_text('{')
  with pytest.raises(ValueError, match='catalogue.jsonl:1: not JSON'):
    catalogues.read(path, ['i3', 'i4'], sids, 8)
