"""`rollouts.jsonl`: some of the groups that RL samples, as text."""

import pathlib

import jax

from gr2_jax import processes
from gr2_jax.rl import config as rl_config
from gr2_jax.rl import rollout, trainer
from gr2_jax.run import artifacts
from gr2_jax.train.metrics import MetricsWriter


def observer(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  directory: pathlib.Path,
  cfg: rl_config.RLConfig,
  mesh: jax.sharding.Mesh,
) -> trainer.Observer:
  """Returns what writes the first group of every `rollouts_every`-th step.

  Args:
    store: the run's artifacts.
    lists: that RL trains on.
    directory: gets `rollouts.jsonl`.
    cfg: how often.
    mesh: the mesh.
  """
  writer = MetricsWriter(directory / 'rollouts.jsonl')
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  first = jax.jit(
    lambda tree: jax.tree.map(lambda x: x[0], tree), out_shardings=whole
  )
  started = False

  def observe(
    step: int, batch: rollout.PromptBatch, rollouts: rollout.Rollouts
  ) -> None:
    nonlocal started
    if not started:
      writer.truncate(step)
      started = True
    if step % cfg.rollouts_every:
      return
    row, group = jax.device_get(first((batch.row, rollouts)))
    if processes.is_first():
      writer.write(step + 1, _describe(store, lists, int(row), group))

  return observe


def _describe(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  row: int,
  group: rollout.Rollouts,
) -> dict:
  """Returns one group as JSON: its list, and each answer with its rewards."""
  answers = [
    {
      'text': store.vocab.decode(tokens[mask].tolist()),
      'reward': round(float(group.rewards[g]), 4),
      'rank_after': int(group.rank_after[g]),
      'valid': bool(group.valid[g]),
    }
    for g, (tokens, mask) in enumerate(
      zip(group.groups.tokens, group.written, strict=True)
    )
  ]
  return {
    'user': int(lists.user[row]),
    'position': int(lists.position[row]),
    'rank_before': int(lists.target[row]) + 1,
    'kept': bool(group.groups.weight > 0),
    'answers': answers,
  }
