"""New rows for the tokens that a pretrained model does not know."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm.config import LMConfig


def grow(
  config: LMConfig,
  params: Any,
  first: int,
  rows: int,
  *,
  mesh: jax.sharding.Mesh,
  rules: sharding.Rules,
  key: jax.Array,
) -> tuple[LMConfig, Any]:
  """Gives the token tables new rows, drawn around the mean of the old ones.

  A row is the mean of the known rows plus a normal deviation of a tenth of
  theirs, component by component: near enough that no new token stands out among
  the logits, and no two are alike (Hewitt, "Initializing new word embeddings
  for pretrained language models", 2021; the tenth is our choice).

  Args:
    config: shape of the model.
    params: its parameters, on the mesh.
    first: the first new row. Rows after it that the checkpoint has, but no
      token, are drawn again.
    rows: V afterwards, a multiple of what the mesh splits the tables into.
    mesh: the mesh.
    rules: the rule table of `params`.
    key: of the draw.

  Returns:
    (shape, parameters): every old row and every other array is the same bit for
    bit.

  Raises:
    ValueError: there would be fewer rows than before, or none is old.
  """
  if not 0 < first <= config.vocab_size <= rows:
    raise ValueError(
      f'A table of {config.vocab_size} rows cannot keep {first} and grow to '
      f'{rows}: keep at least one and at most all, and do not shrink it.'
    )
  grown = dataclasses.replace(config, vocab_size=rows)
  _, shardings = sharding.param_shardings(
    decoder.init_fn(grown), mesh, rules, jax.random.key(0)
  )
  params = dict(params)
  for number, name in enumerate(('embedding', 'output')):
    if name in params:
      run = jax.jit(
        functools.partial(_grow, first=first, rows=rows),
        out_shardings=shardings[name],
      )
      params[name] = run(params[name], jax.random.fold_in(key, number))
  return grown, params


def _grow(table: jax.Array, key: jax.Array, first: int, rows: int) -> jax.Array:
  known = table[:first].astype(jnp.float32)
  mean = known.mean(0, keepdims=True)
  spread = 0.1 * known.std(0, keepdims=True)
  noise = jax.random.normal(key, (rows - first, table.shape[1]))
  new = (mean + spread * noise).astype(table.dtype)
  return jnp.concatenate([table[:first], new])
