"""An update never holds the logits of all tokens at Qwen3's vocabulary."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import tiny

from gr2_jax.lm import decoder, logps
from gr2_jax.rl import groups, objective

V, Q, G, P, S, A = 151_936, 4, 8, 16, 96, 4


def test_an_update_holds_the_logits_of_one_chunk():
  model = dataclasses.replace(tiny.MODEL, vocab_size=V)
  params = nn.meta.unbox(
    jax.eval_shape(decoder.init_fn(model), jax.random.key(0))
  )
  like = lambda kind, *shape: jax.ShapeDtypeStruct(shape, kind)
  batch = groups.Groups(
    prompt=like(jnp.int32, Q, P),
    prompt_valid=like(bool, Q, P),
    tokens=like(jnp.int32, Q, G, S),
    old_logps=like(jnp.float32, Q, G, S),
    mask=like(bool, Q, G, S),
    allowed=like(jnp.int32, Q, G, S, A),
    advantages=like(jnp.float32, Q, G),
    weight=like(jnp.float32, Q),
  )
  loss = objective.make_loss(model, tiny.CONFIG, tiny.FMT)
  update = jax.value_and_grad(lambda *args: loss(*args)[0])
  compiled = jax.jit(update).lower(params, batch).compile()
  used = compiled.memory_analysis().temp_size_in_bytes
  whole = 4 * Q * G * S * V
  chunks = -(-Q * G * S // (logps.BUDGET // (4 * V)))
  chunk = 4 * V * -(-Q * G * S // chunks)
  # Three copies: a chunk's logits, as banned and tempered, and their gradient.
  # Besides, the gradient of the token table and the states.
  expected = 3 * chunk
  assert 2 * chunk <= used < expected + whole / 10 < whole / 1.8
