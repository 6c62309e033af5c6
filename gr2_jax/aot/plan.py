"""A config on a mesh by shapes alone: no weights, and no devices needed."""

import dataclasses
import functools
import math
from typing import Any

import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.decode import items
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl import config as rl_config
from gr2_jax.run import models
from gr2_jax.text import lengths, prompts
from gr2_jax.text.vocab import Vocab


def like(x: Any, split: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array with a sharding."""
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)


def chip_bytes(tree: Any) -> float:
  """Returns the bytes of a tree of sharded arrays that one device holds."""
  return float(
    sum(
      math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
      for x in jax.tree.leaves(tree)
    )
  )


@dataclasses.dataclass(frozen=True)
class Plan:
  """A config on a mesh.

  Attributes:
    config: of the run.
    mesh: the mesh.
    model: shape of the LM.
    vocab: its vocabulary.
  """

  config: ml_collections.ConfigDict
  mesh: jax.sharding.Mesh
  model: LMConfig
  vocab: Vocab

  @functools.cached_property
  def rl(self) -> rl_config.RLConfig:
    """The settings of RL, checked against the mesh."""
    cfg = config_lib.build(rl_config.RLConfig, self.config.rl)
    rl_config.check_mesh(cfg, sharding.batch_parts(self.mesh))
    return cfg

  @property
  def prompt_length(self) -> int:
    """P, as RL pads its longest prompts."""
    longest = lengths.budgets(self.config).prompt
    rounded = padding.round_up(longest)
    return self.rl.prompt_buckets[-1] if self.rl.prompt_buckets else rounded

  @property
  def _counts(self) -> tuple[int, int]:
    """K and M: a list's candidates, and the items that its prompt shows."""
    prompt = config_lib.build(prompts.PromptConfig, self.config.text.prompt)
    return self.config.candidates.k, prompt.citable_items

  @property
  def ids(self) -> int:
    """A, the most ids that a place of an answer may be limited to."""
    return items.allowed_ids(*self._counts)

  def items(self, rows: int) -> list[jax.ShapeDtypeStruct]:
    """Returns the shapes of `decode.items.Items` of a number of prompts."""
    return [
      jax.ShapeDtypeStruct((rows, count, *rest), kind)
      for count in self._counts
      for rest, kind in (((self.vocab.levels,), 'int32'), ((), 'bool'))
    ]

  def params(self, model: LMConfig, rules: sharding.Rules) -> Any:
    """Returns the parameters as shapes with shardings."""
    shapes, shardings = sharding.param_shardings(
      decoder.init_fn(model), self.mesh, rules, jax.random.key(0)
    )
    return jax.tree.map(like, shapes, shardings)

  def split(self, tree: Any) -> Any:
    """Splits arrays [B, ...] over the batch axes of the mesh."""
    rows = sharding.batch_sharding(self.mesh)
    return jax.tree.map(lambda x: like(x, rows), tree)

  def caches(self, tree: Any, axes: tuple[str | None, ...]) -> Any:
    """Splits caches, which may be stacked by layers, for decoding.

    Args:
      tree: of shapes.
      axes: logical names of the last axes: those of `lm/attention.py`.

    Returns:
      The tree with shardings.
    """

    def place(x: Any) -> jax.ShapeDtypeStruct:
      stacked = (None,) * (len(x.shape) - len(axes))
      names = (*stacked, *axes)
      return like(x, sharding.named(self.mesh, sharding.DECODE_RULES, *names))

    return jax.tree.map(place, tree)

  def whole(self, *shape: int, dtype: Any) -> jax.ShapeDtypeStruct:
    """Returns an array that lies whole on each device."""
    given = jax.ShapeDtypeStruct(shape, dtype)
    return like(given, sharding.named(self.mesh, ()))


def make(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> Plan:
  """Plans a config.

  Args:
    config: of the run.
    mesh: of devices that need not be there.

  Returns:
    The plan.

  Raises:
    FileNotFoundError: a checkpoint that is neither there nor known.
    ValueError: caches cannot be split over the mesh.
  """
  model, vocab = models.shape(config)
  split = mesh.shape['tensor']
  if model.kv_heads % split:
    raise ValueError(
      f'config.mesh.tensor = {split}, but the model has {model.kv_heads} '
      'key/value heads, over which caches are split: choose a divisor.'
    )
  return Plan(config, mesh, model, vocab)
