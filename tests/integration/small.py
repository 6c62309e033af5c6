"""The artifacts of a run over a made-up catalogue, held in memory."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, io
from gr2_jax.rank import evidence, heads
from gr2_jax.ranker import ranker, ranking
from gr2_jax.run import artifacts, lineage
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

ITEMS = [
  dataset_lib.Item(f'i{i}', f'Film {i}', (('Drama', 'Comedy')[i % 2],))
  for i in range(20)
]
K = 4


def dataset() -> dataset_lib.Dataset:
  """Twelve users with eight items each."""
  rng = np.random.default_rng(1)
  sequences = {f'u{u:02d}': rng.permutation(20)[:8] for u in range(12)}
  return dataset_lib.from_sequences('made-up', ITEMS, sequences)


def sids() -> np.ndarray:
  """Semantic IDs of two levels with five codes."""
  return np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)


def store(workdir: pathlib.Path) -> artifacts.Artifacts:
  """Artifacts whose parts need no files."""
  config = ml_collections.ConfigDict(
    {
      'data': {'split': {}},
      'candidates': {'source': 'lm'},
      'text': {'prompt': {'max_candidates': K, 'max_tokens': 128}},
    }
  )
  made = artifacts.Artifacts(config, workdir)
  # Where `cached_property` would keep what it reads.
  made.__dict__['dataset'] = dataset()
  made.__dict__['sids'] = sids().astype(np.int32)
  made.__dict__['vocab'] = vocab_lib.Vocab.train(
    wording.corpus(ITEMS), 400, levels=2, codes=5
  )
  return made


def model(parts: artifacts.Artifacts) -> lm_config.LMConfig:
  """The shape of all models here."""
  return lm_config.LMConfig(
    vocab_size=parts.vocab.size,
    width=32,
    layers=1,
    heads=2,
    kv_heads=2,
    head_dim=16,
    mlp_dim=32,
  )


def config() -> ml_collections.ConfigDict:
  """Settings of SFT and RL with utilities, a few steps of each."""
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
      'data': {'split': {}},
      'candidates': {'source': 'lm'},
      'text': {
        'prompt': {
          'max_candidates': K,
          'max_tokens': 128,
          'history_items': 3,
          'retrieval_items': 5,
        }
      },
      'midtrain': {
        'weights': {'next_item': 1.0},
        'new_rows': {},
        'all': {},
        'tasks': {'stride': 2, 'persona_items': 2, 'description_tokens': 8},
      },
      'answer': {'ranking': 'likelihood'},
      'sft': {
        'train': {
          'steps': 4,
          'batch_size': 2,
          'length': 224,
          'lr': 1e-3,
          'dropout': 0.0,
          'ckpt_every': 2,
          'log_every': 1,
        },
        'weights': {'next_item': 0.5, 'answer': 0.5},
        'lists': 4,
        'explained': 2,
        'replay': 0.05,
        'holdout': 0.2,
      },
      'rl': {
        'steps': 4,
        'lr': 1e-3,
        'prompts_per_step': 4,
        'updates_per_rollout': 2,
        'lists_per_step': 8,
        'rankings': 8,
        'explained_per_step': 2,
        'group_size': 4,
        'max_new_tokens': 32,
        'explanation_tokens': 4,
        'credit': 'causal',
        'alpha': 0.02,
        'checkpoint_every': 2,
      },
      'direct': {'steps': 0},
    }
  )


def _write_lists(path: pathlib.Path, positions: Sequence[int]) -> None:
  """Random lists, most with their target, which the column 'follow' favours."""
  rng = np.random.default_rng(len(positions))
  rows = [(u, p) for u in range(12) for p in positions]
  made = dataset()
  candidates, target = [], []
  for user, position in rows:
    true = made.sequence(user)[position]
    others = [i for i in rng.permutation(20) if i != true][:K]
    place = int(rng.integers(0, K + 1))
    if place < K:
      others[place] = true
    candidates.append(others)
    target.append(place if place < K else -1)
  target = np.array(target, np.int32)
  features = rng.normal(size=(len(rows), K, len(evidence.NAMES)))
  features[..., 1] = -np.log1p(np.arange(K))
  features[np.flatnonzero(target >= 0), target[target >= 0], 4] += 1.0
  users, places = np.array(rows, np.int32).T
  files.atomic_savez(
    path,
    user=users,
    position=places,
    candidates=np.array(candidates, np.int32),
    scores=np.zeros((len(rows), K), np.float32),
    target=target,
    features=features.astype(np.float32),
  )


def finish(
  workdir: pathlib.Path, stage: str, inputs: Sequence[str] = (), **sections: Any
) -> None:
  """Records a stage as finished, as the runner does.

  Args:
    workdir: the run's directory.
    stage: the stage.
    inputs: stages that it read, finished before.
    **sections: of its config.
  """
  key = {
    'seed': 0,
    'inputs': {name: lineage.read_done(workdir, name) for name in inputs},
    'external': '',
    'config': config_lib.to_dict(sections),
  }
  (workdir / stage).mkdir(parents=True, exist_ok=True)
  files.write_json(workdir / stage / 'config.json', key)
  done = {'fingerprint': config_lib.fingerprint(key)}
  files.write_json(workdir / stage / 'DONE', done)


def write_before_sft(root: pathlib.Path, mesh: jax.sharding.Mesh) -> None:
  """Writes what the stages before SFT leave, their `DONE` included.

  Args:
    root: the run's directory.
    mesh: where the model is made.
  """
  for stage in ('data', 'sid', 'midtrain', 'candidates', 'traces'):
    (root / stage).mkdir()
    files.write_json(root / stage / 'DONE', {'fingerprint': stage})
  files.atomic_savez(root / 'sid' / 'sids.npz', sids=sids().astype(np.int32))
  parts = store(root)
  parts.vocab.save(root / 'midtrain' / 'vocab')
  shape, key = model(parts), jax.random.key(0)
  params = decoder.init(shape, mesh, sharding.TRAIN_RULES, key)
  io.save(root / 'midtrain' / 'model', shape, params)
  splits = {'train': range(2, 6), 'valid': [6], 'test': [7]}
  for split, positions in splits.items():
    _write_lists(root / 'candidates' / f'{split}.npz', positions)
  names = list(evidence.NAMES)
  files.write_json(
    root / 'candidates' / 'evidence.json',
    {'names': names, 'scales': [1.0] * len(names)},
  )
  lists = artifacts.Artifacts(config(), root).sft_lists()
  traces = []
  for row in range(len(lists)):
    candidates = lists.candidates[row].tolist()
    true = candidates[lists.target[row]]
    traces.append(
      {
        'user': int(lists.user[row]),
        'position': int(lists.position[row]),
        'candidates': candidates,
        'target': true,
        'ranking': [true, *(i for i in candidates if i != true)],
        'explanation': ('Likes drama.', 'Often comedy.')[row % 2],
      }
    )
  files.write_jsonl(root / 'traces' / 'traces.jsonl', traces)


def head(
  tau: float,
  weights: dict[str, float],
  names: tuple[str, ...],
  words: float = 0.0,
) -> Any:
  """Parameters of utilities.

  Args:
    tau: temperature of both heads.
    weights: of columns by name, of the full head; 'alone' has one of its own.
    names: of the columns.
    words: weight of the likelihood behind an explanation, of both heads.
  """
  common = {'tau': np.float32(tau), 'words': np.float32(words)}
  full = np.float32([weights.get(name, 0.0) for name in names])
  alone = np.float32([weights.get('alone', 0.0)])
  return {
    heads.FULL: {**common, 'weights': full},
    heads.ALONE: {**common, 'weights': alone},
  }


def make_ranker(
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
  constrain: bool = True,
  mode: str = ranking.EXPLAINED,
  given: Any = None,
) -> ranker.Ranker:
  """A ranker whose model was never trained; `given` is its head, if any."""
  parts = store(workdir)
  shape = model(parts)
  params = decoder.init(shape, mesh, sharding.DECODE_RULES, jax.random.key(0))
  if given is not None:
    given = sharding.replicate(mesh, given)
  answer = ranking.AnswerConfig(32, 6, constrain)
  params = {'lm': params, 'head': given}
  return ranker.Ranker(shape, params, mesh, parts, answer=answer, mode=mode)
