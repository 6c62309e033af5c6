"""The ranker's own parameters: temperature and weights of the utilities.

    u_i = tau * log P(SID_i | history) + w . f_i
          + v * log P(SID_i | explained prompt, words)

The last term is there where an explanation is. It comes on top, because words
that a teacher wrote about the true item give it away: a ranker that was taught
with them alone trusts its own words too much. RL, where words are its own,
learns v.

There are two heads: 'full' with all columns, and 'alone' with the likelihood
and the incoming order alone, which shows what the language model knows without
the other evidence. 'full' starts at the weights of the linear model
(`rank/linear.py`), fitted on all training lists, so that a ranker begins as
good as its evidence. After SFT both are fitted once more, on lists that SFT did
not see (`stack`): on those that it saw the likelihood is too sure. In RL each
head learns from half of the rankings. All of it is our choice.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import files
from gr2_jax.rank import evidence, linear

DIRECT, EXPLAINED = 'direct', 'explained'
FULL, ALONE = 'full', 'alone'
HEADS = (FULL, ALONE)

# A likelihood over the semantic IDs of a whole catalogue is too sharp among ten
# candidates that a retriever found likely.
TAU = 0.3
# Rankings begin without what the words add: on validation lists a small weight
# (0.05) was no gain. RL learns it from words of its own.
WORDS = 0.0
# Deviation of a normal prior around what the weights were before stacking.
_DEVIATION = 0.3
_ALONE = evidence.NAMES.index('log_rank')
_FILE = 'head.json'


def fit(features: np.ndarray, mask: np.ndarray, target: np.ndarray) -> Any:
  """Makes the parameters that training starts from.

  The weights are those of the linear listwise model: a ranker begins as good as
  its evidence.

  Args:
    features: float32 [N, K, F], columns of training lists.
    mask: bool [N, K], False in padding.
    target: int [N], place of the true item.

  Returns:
    head -> {'tau': float32 [], 'weights': float32 [F or 1], 'words': float32
    []}.
  """
  full = linear.fit(features, mask, target)
  alone = linear.fit(features[..., _ALONE, None], mask, target)
  return {
    head: {
      'tau': np.float32(TAU),
      'weights': weights.astype(np.float32),
      'words': np.float32(WORDS),
    }
    for head, weights in ((FULL, full), (ALONE, alone))
  }


def stack(
  head: Any,
  logps: np.ndarray,
  features: np.ndarray,
  mask: np.ndarray,
  target: np.ndarray,
) -> Any:
  """Fits temperature and weights on lists that the likelihoods were not taught.

  Stacked generalisation (Wolpert, 1992): what a model says of lists that it
  learned from tells nothing of how far to trust it on others.

  Args:
    head: of `fit`: with few lists the result stays near it.
    logps: float32 [N, K], log P of the candidates' semantic IDs.
    features: float32 [N, K, F], columns of N lists.
    mask: bool [N, K], False in padding.
    target: int [N], place of the true item.

  Returns:
    As of `fit`; the weight of words stays.
  """
  made = {}
  for name, own in head.items():
    columns = features if name == FULL else features[..., _ALONE, None]
    columns = np.concatenate([logps[..., None], columns], axis=-1)
    prior = np.concatenate([own['tau'][None], own['weights']])
    l2 = 1 / (len(columns) * _DEVIATION**2)
    found = linear.fit(columns, mask, target, l2, prior).astype(np.float32)
    made[name] = {**own, 'tau': found[0], 'weights': found[1:]}
  return made


def utilities(
  head: Any,
  name: str,
  logps: jax.Array,
  features: jax.Array,
  behind: jax.Array | None = None,
) -> jax.Array:
  """Computes the utilities of candidates.

  Args:
    head: from `fit`.
    name: FULL or ALONE.
    logps: float [..., K], log P of the semantic IDs after the history.
    features: float [..., K, F], evidence columns.
    behind: float [..., K], the same after the words of an explanation; None
      without one.

  Returns:
    float32 [..., K].
  """
  own = head[name]
  if name == ALONE:
    features = features[..., _ALONE, None]
  total = own['tau'] * logps
  total += jnp.einsum('...kf,f->...k', features, own['weights'])
  return total if behind is None else total + own['words'] * behind


def shapes(names: Sequence[str]) -> Any:
  """Returns a head of zeros for columns of these names."""
  zero = np.float32(0)
  return {
    head: {'tau': zero, 'weights': np.zeros(size, np.float32), 'words': zero}
    for head, size in ((FULL, len(names)), (ALONE, 1))
  }


def save(directory: pathlib.Path, head: Any, names: Sequence[str]) -> None:
  """Writes `head.json` beside a model.

  Args:
    directory: of the model.
    head: the parameters.
    names: of the F columns.
  """
  values = jax.tree.map(lambda x: np.asarray(x, np.float64).tolist(), head)
  files.write_json(
    pathlib.Path(directory) / _FILE, {'columns': list(names), **values}
  )


def describe(head: Any, names: Sequence[str]) -> dict:
  """Returns temperature and weights by column, for reports.

  Args:
    head: the parameters.
    names: of the F columns.
  """
  columns = {FULL: names, ALONE: [names[_ALONE]]}
  found = {}
  for name, own in head.items():
    weights = np.asarray(own['weights']).tolist()
    numbers = dict(zip(columns[name], weights, strict=True))
    numbers = {'tau': own['tau'], 'words': own['words'], **numbers}
    found[name] = {key: round(float(x), 4) for key, x in numbers.items()}
  return found


def load(directory: pathlib.Path) -> tuple[Any, tuple[str, ...]] | None:
  """Reads what `save` wrote; None where the model has no head.

  Args:
    directory: of the model.

  Returns:
    (the parameters, the names of the columns).

  Raises:
    ValueError: the file is damaged.
  """
  path = pathlib.Path(directory) / _FILE
  if not path.exists():
    return None
  try:
    stored = files.read_json(path)
    names = tuple(stored.pop('columns'))
    if not all(isinstance(name, str) for name in names):
      raise ValueError('columns are not names')
    head = jax.tree.map(
      lambda like, x: np.asarray(x, np.float32).reshape(like.shape),
      shapes(names),
      stored,
      is_leaf=lambda x: isinstance(x, list),
    )
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(head)):
      raise ValueError('a number is not finite')
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{path} is damaged ({error}): run the stage again that wrote it.'
    ) from error
  return head, names
