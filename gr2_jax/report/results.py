"""From re-ranked lists to the numbers of the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax.rank import bootstrap, metrics
from gr2_jax.rl import rewards

# Metrics over the list, as the papers give them [P].
RECALL = (1, 3, 5)
NDCG = (3, 5)
# Beside them for graded lists: what RL is rewarded for there [P: GR2-T].
GRADED = ('auc', 'graded_ndcg')
# What each system is, in the order of the report; a run may lack any of them.
SYSTEMS = {
  'prerank': 'the incoming order',
  'random': 'the candidates in random order',
  'popularity': 'by the number of training interactions',
  'sasrec': 'by SASRec, trained with full cross-entropy',
  'rules': 'by the rules teacher',
  'evidence': 'a linear listwise model on exactly the columns that rl uses',
  'sft': 'the language model after SFT',
  'rl': 'the language model after RL: what is served',
  'rl_alone': "the same model's likelihood and log rank alone",
  'direct': 'rl without an explanation',
  'list': "the paper's list, written token by token",
}
DELTAS = (
  ('rl', 'prerank'),
  ('rl_alone', 'prerank'),
  ('rl', 'evidence'),
  ('rl', 'sft'),
  ('direct', 'rl'),
  ('sasrec', 'prerank'),
)


@dataclasses.dataclass(frozen=True)
class System:
  """What one system made of N lists of K candidates.

  Attributes:
    orders: int32 [N, K], item indices, best first, -1 at the end of shorter
      lists; the incoming order where the answer was not valid, since that is
      what serving falls back to.
    valid: bool [N], whether the answer was a permutation of the candidates.
    tokens: int [N], lengths of the answers; None where nothing was written.
    prompt_tokens: int [N], lengths of the prompts; None where there are none.
  """

  orders: np.ndarray
  valid: np.ndarray
  tokens: np.ndarray | None = None
  prompt_tokens: np.ndarray | None = None

  def take(self, rows: np.ndarray) -> 'System':
    """Returns the lists at `rows`."""
    cut = lambda x: None if x is None else x[rows]
    return System(
      self.orders[rows],
      self.valid[rows],
      cut(self.tokens),
      cut(self.prompt_tokens),
    )


def ordered(systems: Mapping[str, Any]) -> dict[str, Any]:
  """Returns systems in the order of `SYSTEMS`, those of other names last."""
  names = [name for name in SYSTEMS if name in systems]
  names += [name for name in systems if name not in SYSTEMS]
  return {name: systems[name] for name in names}


def interval(triple: Sequence[float]) -> str:
  """Writes [delta, low, high] as `+0.012 [-0.003, +0.027]`."""
  delta, low, high = (f'{v:+.3f}' for v in triple)
  return f'{delta} [{low}, {high}]'


def coverage(candidates: np.ndarray, num_items: int) -> float:
  """Returns the share of the catalogue that stands in some list.

  Args:
    candidates: int [N, K], -1 pads.
    num_items: I.
  """
  return len(np.unique(candidates[candidates >= 0])) / num_items


def top_share(orders: np.ndarray) -> float:
  """Returns the share of lists that have the most frequent first item first.

  Args:
    orders: int [N, K], best first, none empty.
  """
  _, counts = np.unique(orders[:, 0], return_counts=True)
  return float(counts.max() / len(orders))


def by_list(system: System, targets: np.ndarray) -> dict[str, np.ndarray]:
  """Scores each list of a system.

  Args:
    system: the re-ranked lists.
    targets: int32 [N], the true items; each stands in its list.

  Returns:
    Metric name to float64 [N].
  """
  positions = metrics.find_positions(system.orders, targets)
  return metrics.by_list(positions, RECALL, NDCG)


def graded_by_list(
  system: System, incoming: np.ndarray, grades: np.ndarray
) -> dict[str, np.ndarray]:
  """Scores each list of a system by all its grades.

  Args:
    system: the re-ranked lists.
    incoming: int32 [N, K], the lists that `grades` belong to, -1 pads.
    grades: int32 [N, K], what each of these candidates is worth.

  Returns:
    'auc' and 'graded_ndcg' (of the whole list, gains 2^g - 1) to float64 [N];
    both as `rl.rewards` computes them.
  """
  order = (system.orders[:, :, None] == incoming[:, None]).argmax(axis=-1)
  served = np.take_along_axis(grades, order, axis=1)
  places = np.arange(incoming.shape[1])[None]
  real = incoming >= 0
  measured = (
    measure(served, places, real) for measure in (rewards.auc, rewards.ndcg)
  )
  values = (np.asarray(value, np.float64) for value in measured)
  return dict(zip(GRADED, values, strict=True))


def summarise(
  systems: Mapping[str, System],
  incoming: np.ndarray,
  targets: np.ndarray,
  seed: int,
  *,
  grades: np.ndarray | None = None,
  users: np.ndarray | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
  """Compares systems on the same lists.

  Metrics are of the order that would be served: an answer that is no
  permutation counts as the incoming order. `valid_rate` says how often that was
  not needed, and `identity_rate` how often a valid answer is the incoming
  order.

  Args:
    systems: by name, of `SYSTEMS`.
    incoming: int32 [N, K], the lists before re-ranking, -1 pads.
    targets: int32 [N], the true items.
    seed: of the bootstrap.
    grades: int32 [N, K] of graded lists, for the metrics `GRADED`.
    users: int [N], whose lists they are; None draws each list alone.

  Returns:
    (system, in the order of `SYSTEMS`, to metric to mean, with 'valid_rate',
    'identity_rate' and, for those that write answers, 'answer_tokens';
    'left-right' to metric to [delta, low, high], a paired bootstrap over users
    of 95 %, for those of `DELTAS` that are there).
  """
  systems = ordered(systems)
  values = {name: by_list(system, targets) for name, system in systems.items()}
  if grades is not None:
    for name, system in systems.items():
      values[name] |= graded_by_list(system, incoming, grades)
  table = {}
  for name, system in systems.items():
    same = (system.orders == incoming).all(axis=1) & system.valid
    table[name] = {
      **metrics.mean(values[name]),
      'valid_rate': float(system.valid.mean()),
      'identity_rate': float(same.mean()),
    }
    if system.tokens is not None:
      table[name]['answer_tokens'] = float(system.tokens.mean())
    if system.prompt_tokens is not None:
      table[name]['prompt_tokens'] = float(system.prompt_tokens.mean())
  deltas = {
    f'{left}-{right}': bootstrap.paired_difference(
      values[left], values[right], seed, groups=users
    )
    for left, right in DELTAS
    if left in values and right in values
  }
  return table, deltas


def difference(
  left: System,
  right: System,
  targets: np.ndarray,
  seed: int,
  *,
  graded: tuple[np.ndarray, np.ndarray] | None = None,
  users: np.ndarray | None = None,
) -> dict[str, list[float]]:
  """Compares two systems on the same lists.

  Args:
    left: one system.
    right: the other.
    targets: int32 [N], the true items.
    seed: of the bootstrap.
    graded: incoming lists and grades of graded lists, int32 [N, K] both, for
      the metrics `GRADED`.
    users: int [N], whose lists they are; None draws each list alone.

  Returns:
    Metric to [left - right, low, high], a paired bootstrap over users of 95 %.
  """
  values = [by_list(system, targets) for system in (left, right)]
  if graded is not None:
    for found, system in zip(values, (left, right), strict=True):
      found |= graded_by_list(system, *graded)
  return bootstrap.paired_difference(*values, seed, groups=users)


def reorder(incoming: np.ndarray, keys: np.ndarray) -> System:
  """Makes a system that sorts each list by a key, best first.

  Args:
    incoming: int32 [N, K], -1 pads at the end.
    keys: [N, K], higher is better; equal keys keep the incoming order.

  Returns:
    The system; all its answers are valid.
  """
  keys = np.where(incoming >= 0, keys, -np.inf)
  order = np.argsort(-keys, axis=1, kind='stable')
  return System(
    np.take_along_axis(incoming, order, axis=1),
    np.ones(len(incoming), bool),
  )


def from_rankings(
  incoming: np.ndarray,
  orders: Sequence[np.ndarray],
  valid: Sequence[bool],
  tokens: Sequence[int],
  prompt_tokens: Sequence[int] | None = None,
) -> System:
  """Makes a system of the answers of a model.

  Args:
    incoming: int32 [N, K], gives the width.
    orders: N arrays of item indices, best first.
    valid: N flags.
    tokens: N lengths of the answers.
    prompt_tokens: N lengths of the prompts.

  Returns:
    The system.
  """
  padded = np.full_like(incoming, -1)
  for row, order in zip(padded, orders, strict=True):
    row[: len(order)] = order
  prompts = None if prompt_tokens is None else np.asarray(prompt_tokens)
  return System(padded, np.asarray(valid, bool), np.asarray(tokens), prompts)
