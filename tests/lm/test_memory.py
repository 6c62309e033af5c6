"""The logits of all tokens never exist at Qwen3's vocabulary."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from gr2_jax.lm import decoder, logps, loss
from gr2_jax.lm.config import LMConfig

V, B = 151_936, 8
CONFIG = LMConfig(
  vocab_size=V, width=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=32
)


@functools.cache
def _temporaries(length):
  """Bytes that a loss and its gradient need; nothing runs."""
  params = nn.meta.unbox(
    jax.eval_shape(decoder.init_fn(CONFIG), jax.random.key(0))
  )
  ints, floats = (
    jax.ShapeDtypeStruct((B, length), kind) for kind in (jnp.int32, jnp.float32)
  )
  batch = dict(tokens=ints, positions=ints, segments=ints, weights=floats)
  total = lambda params, batch: loss.lm_loss(CONFIG, params, batch)[0]
  compiled = jax.jit(jax.value_and_grad(total)).lower(params, batch).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_training_holds_the_logits_of_one_chunk():
  whole = 4 * B * 256 * V
  # As many chunks of one size as the budget makes necessary.
  chunks = -(-B * 256 // (logps.BUDGET // (4 * V)))
  chunk = 4 * V * -(-B * 256 // chunks)
  # Two copies: a chunk's logits and their gradient. Besides, the gradient of
  # the token table and what attention and the layer keep: a tenth of `whole`.
  expected = 2 * chunk
  assert expected <= _temporaries(256) < expected + whole / 10 < whole / 1.9


def test_longer_rows_need_no_more():
  # The rest grows: states, and attention's scores of one layer.
  rest = 4 * B * (512**2 - 256**2) * CONFIG.heads * 3
  assert _temporaries(512) - _temporaries(256) < rest
