"""The stages before SFT in a synthetic world (`data/synthetic.py`).

Nothing has to be learned that the world knows: its semantic IDs, its lists and
its answers are written as the stages of the same names would write them, and
SFT and RL run as always. The answers know the format and not the rule, so that
what RL makes of the order is due to the reward alone.
"""

from collections.abc import Callable

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, processes
from gr2_jax.data import sources, splits, synthetic
from gr2_jax.lm import io
from gr2_jax.rank import metrics
from gr2_jax.run import artifacts, models, runner
from gr2_jax.stages import requests
from gr2_jax.text import vocab, wording


@runner.stage('sid', sections=('data', 'sid'), inputs=('data',))
def sid(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Writes the world's semantic IDs."""
  sids = synthetic.sids(
    config_lib.build(synthetic.WorldConfig, config.data.world)
  )
  path = context.directory / 'sids.npz'
  processes.on_first(files.atomic_savez, path, sids=sids, raw=sids)
  return {'items': len(sids)}


@runner.stage('midtrain', sections=('text', 'lm'), inputs=('data', 'sid'))
def midtrain(
  config: ml_collections.ConfigDict, context: runner.Context
) -> dict:
  """Writes a vocabulary and a decoder of random weights."""
  store = artifacts.Artifacts(config, context.workdir)
  directory = context.directory / 'vocab'
  sids = store.sids.shape[1], config.sid.codes
  texts = wording.corpus(store.dataset.items)
  shape, params, found = models.start(
    config,
    sids,
    context.mesh,
    context.seed,
    lambda: vocab.Vocab.train(texts, config.text.pieces, *sids),
  )
  processes.on_first(found.save, directory)
  io.save(context.directory / 'model', shape, params)
  return {'parameters': shape.num_params, 'vocabulary': found.size}


@runner.stage('candidates', sections=('data',), inputs=('data', 'sid'))
def candidates(
  config: ml_collections.ConfigDict, context: runner.Context
) -> dict:
  """Writes the world's lists; returns how good their incoming order is."""
  return processes.on_first(_write_lists, config, context)


def _write_lists(
  config: ml_collections.ConfigDict, context: runner.Context
) -> dict:
  store = artifacts.Artifacts(config, context.workdir)
  slates = {(s.user, s.timestamp): s for s in store.dataset.slates}
  summary = {}
  for split in splits.NAMES:
    user, position = store.splits.examples[split]
    pairs = zip(user.tolist(), position.tolist(), strict=True)
    found = [slates[pair] for pair in pairs]
    target = np.array([s.labels.index(1) for s in found], np.int32)
    shown = np.array([s.items for s in found], np.int32)
    files.atomic_savez(
      context.directory / f'{split}.npz',
      user=user,
      position=position,
      candidates=shown,
      scores=-np.broadcast_to(
        np.arange(shown.shape[1], dtype=np.float32), shown.shape
      ),
      target=target,
    )
    summary[split] = {
      'lists': len(found),
      'recall@1': float(metrics.recall_at_k(target, 1)),
      'ndcg@5': float(metrics.ndcg_at_k(target, 5)),
    }
  return summary


@runner.stage(
  'traces', sections=('traces',), inputs=('data', 'sid', 'candidates')
)
def traces(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Writes an answer to each training list, blind to its target."""
  cfg = config_lib.build(requests.TracesConfig, config.traces)
  lists = artifacts.Artifacts(config, context.workdir).lists('train')
  rng = np.random.default_rng(context.seed)
  answers = []
  for row in range(len(lists)):
    shown = lists.candidates[row]
    first = 0 if rng.random() < cfg.keep else rng.integers(1, len(shown))
    order = np.roll(shown, -first)
    answers.append(
      {
        'user': int(lists.user[row]),
        'position': int(lists.position[row]),
        'candidates': shown.tolist(),
        'ranking': order.tolist(),
        'explanation': '',
      }
    )
  path = context.directory / 'traces.jsonl'
  processes.on_first(files.write_jsonl, path, answers)
  return {'answers': len(answers)}


# In place of the pipeline's stages of these names.
STAGES = {
  'sid': sid,
  'midtrain': midtrain,
  'candidates': candidates,
  'traces': traces,
}


def stages(config: ml_collections.ConfigDict) -> dict[str, Callable]:
  """Returns the stages that a run's world carries, by name."""
  return STAGES if config.data.kind == sources.SYNTHETIC else {}
