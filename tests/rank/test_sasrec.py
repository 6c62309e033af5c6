"""SASRec on made-up chains: item i is always followed by item i + 1."""

import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import metrics, sasrec
from gr2_jax.train import checkpoint

ITEMS = 20
CFG = sasrec.SASRecConfig(
  width=16,
  layers=1,
  mlp_dim=16,
  max_length=8,
  dropout=0.1,
  lr=1e-2,
  warmup_steps=5,
  batch_size=8,
  length=16,
  max_epochs=10,
  every=5,
)


def _dataset():
  rng = np.random.default_rng(0)
  starts = rng.integers(ITEMS, size=60)
  lengths = rng.integers(5, 12, size=60)
  return dataset_lib.from_sequences(
    'chains',
    [dataset_lib.Item(f'i{i}', f'title {i}') for i in range(ITEMS)],
    {
      f'u{u:02}': (start + np.arange(n)) % ITEMS
      for u, (start, n) in enumerate(zip(starts, lengths, strict=True))
    },
  )


DATASET = _dataset()
SPLITS = splits_lib.make(DATASET, splits_lib.SplitConfig(n_train=0))


@pytest.fixture(scope='module')
def trained(tmp_path_factory, mesh1):
  directory = tmp_path_factory.mktemp('sasrec')
  model = sasrec.train(DATASET, SPLITS, CFG, mesh1, directory, seed=0)
  return model, directory


def _test_histories():
  users, positions = SPLITS.examples['test']
  histories = [
    DATASET.sequence(u)[:p] for u, p in zip(users, positions, strict=True)
  ]
  targets = [
    DATASET.sequence(u)[p] for u, p in zip(users, positions, strict=True)
  ]
  return histories, np.array(targets)


def test_learns_the_chain(trained):
  histories, targets = _test_histories()
  items, _ = sasrec.top_k(trained[0], histories, 1)
  # A rule without exception: nearly every target must come first.
  assert np.mean(items[:, 0] == targets) > 0.9


def test_top_k_is_ordered_and_leaves_out_the_seen(trained):
  # Longer than max_length: all of it is left out, not only what is read.
  histories = [np.arange(12), np.array([3]), np.arange(17)]
  items, values = sasrec.top_k(trained[0], histories, 5)
  assert items.dtype == np.int32
  assert (np.diff(values[:2], axis=1) <= 0).all()
  for row, history in zip(items, histories, strict=True):
    assert not set(row[row >= 0]) & set(history)
  assert (items[2, 3:] == -1).all() and np.isneginf(values[2, 3:]).all()
  assert len(set(items[0])) == 5
  seen, _ = sasrec.top_k(trained[0], histories, ITEMS, exclude_seen=False)
  assert (np.sort(seen, axis=1) == np.arange(ITEMS)[None]).all()


def test_ranks_are_places_in_the_whole_ranking(trained):
  histories, targets = _test_histories()
  for exclude in (True, False):
    items, _ = sasrec.top_k(trained[0], histories, ITEMS, exclude)
    ranks = sasrec.find_ranks(trained[0], histories, targets, exclude)
    np.testing.assert_array_equal(
      items[np.arange(len(targets)), ranks], targets
    )


def test_scores_are_those_of_the_lists(trained):
  histories, _ = _test_histories()
  items, expected = sasrec.top_k(trained[0], histories, 4)
  # The same logits, in batches of the same shape.
  np.testing.assert_allclose(
    sasrec.scores(trained[0], histories, items), expected, atol=1e-5
  )


def test_load_reads_what_train_left(trained, tmp_path, mesh1):
  model, directory = trained
  again = sasrec.load(ITEMS, CFG, mesh1, directory)
  jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
  with pytest.raises(FileNotFoundError, match='train it first'):
    sasrec.load(ITEMS, CFG, mesh1, tmp_path)


def test_a_list_does_not_depend_on_its_neighbours(trained):
  histories, _ = _test_histories()
  together, values = sasrec.top_k(trained[0], histories, 5)
  for i in (0, 7):
    alone, own = sasrec.top_k(trained[0], histories[i : i + 1], 5)
    np.testing.assert_array_equal(alone[0], together[i])
    # Another padding changes the order of float32 sums only.
    np.testing.assert_allclose(own[0], values[i], atol=1e-4)


def test_eight_devices_give_the_same_lists(trained, mesh8):
  from gr2_jax import sharding

  model, _ = trained
  histories, _ = _test_histories()
  whole = dataclasses.replace(
    model, params=sharding.replicate(mesh8, model.params), mesh=mesh8
  )
  items, values = sasrec.top_k(model, histories, 5)
  items8, values8 = sasrec.top_k(whole, histories, 5)
  np.testing.assert_array_equal(items, items8)
  np.testing.assert_allclose(values, values8, atol=1e-4)


def test_a_killed_run_ends_in_the_same_model(
  trained, tmp_path, mesh1, monkeypatch
):
  class Killed(Exception):
    pass

  append = files.append_jsonl

  def kill_at_second_validation(path, record):
    append(path, record)
    if sum('valid_ndcg@10' in r for r in files.read_jsonl(path)) == 2:
      raise Killed

  monkeypatch.setattr(files, 'append_jsonl', kill_at_second_validation)
  with pytest.raises(Killed):
    sasrec.train(DATASET, SPLITS, CFG, mesh1, tmp_path, seed=0)
  monkeypatch.setattr(files, 'append_jsonl', append)
  again = sasrec.train(DATASET, SPLITS, CFG, mesh1, tmp_path, seed=0)
  model, directory = trained
  jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
  name = 'metrics.jsonl'
  assert (tmp_path / name).read_text() == (directory / name).read_text()


def test_a_finished_directory_is_read_not_trained(trained, mesh1):
  model, directory = trained
  before = (directory / 'metrics.jsonl').read_text()
  again = sasrec.train(DATASET, SPLITS, CFG, mesh1, directory, seed=0)
  jax.tree.map(np.testing.assert_array_equal, model.params, again.params)
  assert (directory / 'metrics.jsonl').read_text() == before


def test_patience_ends_training_and_keeps_the_best(
  tmp_path, mesh1, monkeypatch
):
  values = iter([0.2, 0.3, 0.3, 0.1, 0.9])
  monkeypatch.setattr(metrics, 'ndcg_at_k', lambda ranks, k: next(values))
  cfg = dataclasses.replace(CFG, every=1, patience=2, max_epochs=9)
  sasrec.train(DATASET, SPLITS, cfg, mesh1, tmp_path, seed=0)
  found = [
    record['valid_ndcg@10']
    for record in files.read_jsonl(tmp_path / 'metrics.jsonl')
    if 'valid_ndcg@10' in record
  ]
  assert found == [0.2, 0.3, 0.3, 0.1]
  with checkpoint.Checkpointer(tmp_path / 'checkpoints') as every:
    last = every.latest
  with checkpoint.Checkpointer(tmp_path / 'best') as best:
    assert best.latest == last // 2


def test_nothing_to_validate_is_an_error(tmp_path, mesh1):
  splits = splits_lib.make(
    DATASET, splits_lib.SplitConfig(kind='last_n', n_valid=0)
  )
  with pytest.raises(ValueError, match='0 validation targets'):
    sasrec.train(DATASET, splits, CFG, mesh1, tmp_path, seed=0)


def test_bad_requests_name_the_value(trained):
  with pytest.raises(ValueError, match='k = 21'):
    sasrec.top_k(trained[0], [np.array([1])], ITEMS + 1)
  with pytest.raises(ValueError, match='History 1 is empty'):
    sasrec.top_k(trained[0], [np.array([1]), np.array([], np.int32)], 2)
