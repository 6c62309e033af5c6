"""Low-rank updates of the projections (LoRA; Hu et al., arXiv 2106.09685).

Each projection's kernel W [A, B] becomes W + (alpha / r) a b, with a [A, r] and
b [r, B] of its own; only these are trained, so that neither gradients nor
optimiser states of W exist. `layers.Linear` computes it; here models get their
updates and lose them again.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig

NAMES = ('lora_a', 'lora_b')


def add(
  config: LMConfig,
  params: Any,
  rank: int,
  alpha: float,
  *,
  mesh: jax.sharding.Mesh,
  rules: sharding.Rules,
  key: jax.Array,
) -> tuple[LMConfig, Any]:
  """Gives a model updates that are zero: it computes what it did before.

  Args:
    config: shape of the model, without LoRA.
    params: its parameters, on the mesh.
    rank: r, at least 1.
    alpha: the updates are scaled by alpha / r.
    mesh: the mesh.
    rules: TRAIN_RULES or DECODE_RULES.
    key: of a's draw.

  Returns:
    (shape with LoRA, parameters with a of random numbers and b of zeros; the
    others are the same arrays).

  Raises:
    ValueError: the model has updates already, or the rank is not positive.
  """
  if config.lora_rank or rank < 1:
    raise ValueError(
      f'LoRA of rank {rank} on a model that has rank {config.lora_rank}: merge '
      'the old updates first, and give a rank of at least 1.'
    )
  config = dataclasses.replace(config, lora_rank=rank, lora_alpha=alpha)

  def only_new(key: jax.Array) -> Any:
    return _where(decoder.init_fn(config)(key), lambda name: name in NAMES)

  new, _ = sharding.init(only_new, mesh, rules, key)
  return config, _joined(params, new)


def merge(config: LMConfig, params: Any) -> tuple[LMConfig, Any]:
  """Adds the updates to the kernels.

  Args:
    config: shape of the model; without LoRA, nothing is done.
    params: its parameters.

  Returns:
    (shape without LoRA, its parameters; kernels keep their types).
  """
  if not config.lora_rank:
    return config, params
  scale = config.lora_alpha / config.lora_rank

  @jax.jit
  def add(kernel, down, up):
    # [A, r] x [r, B], with the layers in front where they are stacked.
    change = jax.lax.dot_general(
      down,
      up,
      (((down.ndim - 1,), (up.ndim - 2,)), (range(down.ndim - 2),) * 2),
      precision=jax.lax.Precision.HIGHEST,
    )
    return (kernel + scale * change).astype(kernel.dtype)

  def walk(tree: Any) -> Any:
    if not isinstance(tree, dict):
      return tree
    if NAMES[0] in tree:
      kernel = add(tree['kernel'], tree[NAMES[0]], tree[NAMES[1]])
      rest = {k: v for k, v in tree.items() if k not in NAMES}
      return {**rest, 'kernel': kernel}
    return {name: walk(branch) for name, branch in tree.items()}

  config = dataclasses.replace(
    config, lora_rank=0, lora_alpha=LMConfig.lora_alpha
  )
  return config, walk(params)


def _where(tree: Any, keep: Callable[[str], bool]) -> Any:
  """Returns the branches of a tree of dicts that lead to kept names."""
  found = {}
  for name, branch in tree.items():
    inner = _where(branch, keep) if isinstance(branch, dict) else branch
    if isinstance(branch, dict) and inner or keep(name):
      found[name] = inner
  return found


def _joined(tree: Any, other: Any) -> Any:
  """Joins two trees of dicts whose leaves have different names."""
  if not isinstance(tree, dict):
    return tree
  return {
    name: _joined(tree[name], other[name])
    if name in tree and name in other
    else {**other, **tree}[name]
    for name in sorted({**tree, **other})
  }
