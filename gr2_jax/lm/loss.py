"""Next-token loss of the decoder on packed rows."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax.lm import decoder, logps, tables
from gr2_jax.lm.config import LMConfig

Sums = dict[str, tuple[jax.Array, jax.Array]]


def lm_loss(
  config: LMConfig, params: Any, batch: dict, num_tasks: int = 0
) -> tuple[jax.Array, jax.Array, Sums]:
  """Sums the weighted negative log-likelihood of next tokens.

  Args:
    config: shape of the model.
    params: its parameters.
    batch: of `data.pipeline`: `tokens`, `segments` (0 is padding),
      `positions`, int [B, T]; `weights`, float [B, T], of the token that
      stands there and is predicted from the place before it. The first token
      of a segment is never predicted. With `num_tasks` also `task`, int [B, T];
      with `seed` uint32 [B] (`data.seeded`) activations are dropped.
    num_tasks: how many values `task` takes; 0 leaves tasks alone.

  Returns:
    (sum of weight x NLL in nats, sum of weights, metrics). Metrics are pairs
    (sum, count): `nll`, where each scored token counts 1, and `nll_task<i>`.
  """
  model = decoder.Decoder(config)
  variables = {'params': params}
  rngs = None
  if 'seed' in batch:
    rngs = {'dropout': jax.random.key(batch['seed'][0])}
  # All T places are computed, though the last predicts nothing: shapes stay
  # those of the batch.
  hidden = model.apply(
    variables,
    batch['tokens'],
    batch['positions'],
    batch['segments'],
    method='hidden',
    rngs=rngs,
  )
  targets = _next(batch['tokens'])
  segments = batch['segments']
  inside = (segments == _next(segments)) & (segments > 0)
  inside = inside.at[:, -1].set(False)
  weights = jnp.where(inside, _next(batch['weights']), 0.0)
  scores, _ = logps.chunked_logps(
    functools.partial(tables.unembed, config),
    tables.output(config, params),
    hidden,
    targets,
  )
  scored = (weights > 0).astype(jnp.float32)
  metrics = {'nll': (-jnp.sum(scores * scored), scored.sum())}
  for i in range(num_tasks):
    chosen = jnp.where(_next(batch['task']) == i, scored, 0.0)
    metrics[f'nll_task{i}'] = (-jnp.sum(scores * chosen), chosen.sum())
  return -jnp.sum(scores * weights), weights.sum(), metrics


def _next(x: jax.Array) -> jax.Array:
  return jnp.roll(x, -1, axis=1)
