"""The time of one list in the process, at the quickstart's sizes.

The ranker has random weights, a catalogue of as many items as MovieLens-100K
with random sequences, all evidence columns, SASRec's too. Ours ranks directly,
through the Python API, one list at a time, as a service would; beside it the
same ranker writes the paper's list token by token.
"""

import pathlib
import time
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from gr2_jax import rerank, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rank import evidence, heads, sasrec, sasrec_lists
from gr2_jax.rank import sasrec_model as network
from gr2_jax.ranker import ranker, ranking
from gr2_jax.run import artifacts
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording
from launch.bench import contests

ITEMS, USERS, WATCHED = 1682, 943, 106
LEVELS, CODES, K = 4, 64, 10
# Different lists, and calls whose times give the percentiles.
LISTS, CALLS, THEIR_CALLS = 64, 1000, 50
WORDS = 'star night city love war the dead time last king moon river'.split()
GENRES = 'Action Comedy Drama Horror Romance Thriller'.split()


def _store() -> artifacts.Artifacts:
  """Makes the artifacts of a run, in memory."""
  rng = np.random.default_rng(0)
  items = [
    dataset_lib.Item(
      f'{i}',
      f'{" ".join(rng.choice(WORDS, 3))} {i} ({1920 + i % 80})',
      tuple(rng.choice(GENRES, 2, replace=False)),
    )
    for i in range(ITEMS)
  ]
  sequences = {f'{u}': rng.permutation(ITEMS)[:WATCHED] for u in range(USERS)}
  config = ml_collections.ConfigDict(
    {
      'data': {'split': {}},
      'candidates': {'source': 'lm'},
      'text': {
        'prompt': {
          'history_items': 6,
          'max_candidates': K,
          'max_tokens': 288,
          'retrieval_items': 20,
        }
      },
    }
  )
  store = artifacts.Artifacts(config, pathlib.Path('made-up'))
  sids = rng.permutation(CODES**2)[:ITEMS]
  sids = np.stack([sids // CODES, sids % CODES] * 2, axis=1).astype(np.int32)
  # Where `cached_property` would keep what it reads.
  store.__dict__.update(
    dataset=dataset_lib.from_sequences('made-up', items, sequences),
    sids=sids,
    vocab=vocab_lib.Vocab.train(wording.corpus(items), 600, LEVELS, CODES),
  )
  return store


def _ranker(model: LMConfig, mode: str) -> ranker.Ranker:
  """Makes a ranker on random weights.

  Args:
    model: shape of the decoder, for all but the number of tokens' rows.
    mode: of `ranking.MODES`.
  """
  mesh, store, key = sharding.make_mesh(), _store(), jax.random.key(0)
  # The rows that random tokens lack belong to no token.
  lm = decoder.init(model, mesh, sharding.DECODE_RULES, key)
  model, lm = decoder.narrow(model, lm)
  shape = sasrec.SASRecConfig().network(ITEMS)
  example = np.zeros((1, 2), np.int32)
  trained = network.SASRec(shape).init(key, example, example, example)
  trained = sharding.replicate(mesh, nn.meta.unbox(trained['params']))
  columns = evidence.Evidence(
    store.dataset,
    store.splits,
    evidence.EvidenceConfig(),
    sasrec_lists.Model(shape, trained, mesh),
  )
  head = jax.tree.map(np.ones_like, heads.shapes(columns.names))
  params = {'lm': lm, 'head': sharding.replicate(mesh, head)}
  answer = ranking.AnswerConfig(96, 32, constrain=True)
  given = model, params, mesh, store
  return ranker.Ranker(
    *given, answer=answer, mode=mode, progress=False, known=columns
  )


def _lists(store: artifacts.Artifacts) -> list[dict]:
  """Makes lists by item id, of histories of all lengths from 20 on."""
  rng = np.random.default_rng(1)
  lists = []
  for user in range(LISTS):
    length = int(rng.integers(20, WATCHED))
    names = [str(i) for i in store.dataset.sequence(user)[:length]]
    candidates = [str(i) for i in rng.choice(ITEMS, K, replace=False)]
    scores = (-np.arange(K) / 2).tolist()
    lists.append({'history': names, 'candidates': candidates, 'scores': scores})
  return lists


def _calls(made: ranker.Ranker) -> Callable[[], None]:
  """Returns what ranks one list, another one each time."""
  lists, number = _lists(made.store), [0]
  made.warm_up(batch_size=1)

  def run() -> None:
    number[0] = (number[0] + 1) % len(lists)
    rerank.rank_records(made, [lists[number[0]]])

  return run


def _percentiles(run: Callable[[], None], calls: int) -> dict[str, float]:
  """Returns the seconds of a call: median, 99 of a hundred, all."""
  seconds = []
  for _ in range(calls):
    started = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - started)
  return {
    'p50': float(np.percentile(seconds, 50)),
    'p99': float(np.percentile(seconds, 99)),
    'most': max(seconds),
  }


def latency(size: str, model: LMConfig) -> Iterator[contests.Contest]:
  """One list without explanation beside one that is written."""
  ours = _calls(_ranker(model, ranking.DIRECT))
  theirs = _calls(_ranker(model, ranking.LIST))

  def split(_: int) -> dict[str, dict[str, float]]:
    return {
      'ours': _percentiles(ours, CALLS),
      'theirs': _percentiles(theirs, THEIR_CALLS),
    }

  yield contests.Contest(
    f'latency of one list, {size}, direct', "mode='list'", 'lists', 1,
    ours=ours, theirs=theirs, goal=10.0, split=split,
  )  # fmt: skip
