"""An update never holds the logits of all tokens at Qwen3's vocabulary."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from gr2_jax.lm import decoder, logps
from gr2_jax.rl import groups, objective
from tests.rl import tiny

V, Q, G, P, S, A = 151_936, 4, 8, 16, 96, 4


def _update_bytes(config, reference=None):
  """Temporary bytes of a compiled update, whose arrays never exist."""
  model = dataclasses.replace(tiny.MODEL, vocab_size=V)
  params = nn.meta.unbox(
    jax.eval_shape(decoder.init_fn(model), jax.random.key(0))
  )
  like = lambda kind, *shape: jax.ShapeDtypeStruct(shape, kind)
  batch = groups.Groups(
    prompt=like(jnp.int32, Q, P),
    prompt_valid=like(bool, Q, P),
    tokens=like(jnp.int32, Q, G, S),
    sampler_logps=like(jnp.float32, Q, G, S),
    old_logps=like(jnp.float32, Q, G, S),
    mask=like(bool, Q, G, S),
    allowed=like(jnp.int32, Q, G, S, A),
    advantages=like(jnp.float32, Q, G),
    weight=like(jnp.float32, Q),
    age=like(jnp.int32, Q),
  )
  frozen = ()
  if config.kl:
    reference, frozen = model, (params,)
  loss = objective.make_loss(model, config, tiny.FMT, reference)
  update = jax.value_and_grad(lambda *args: loss(*args)[0])
  compiled = jax.jit(update).lower(params, batch, *frozen).compile()
  return compiled.memory_analysis().temp_size_in_bytes


# Copies of a chunk's logits, whose size is the budget: as banned and tempered,
# and their gradient. Beside a reference a chunk has half as many tokens, two
# models' logits, and the terms of the KL.
@pytest.mark.parametrize(('kl', 'copies'), [(0.0, 3), (0.1, 3)])
def test_an_update_holds_the_logits_of_one_chunk(kl, copies):
  # Every place may be an explanation's: the list's take few logits.
  config = dataclasses.replace(
    tiny.CONFIG, kl=kl, reference='sft' if kl else '', explanation_tokens=S
  )
  used = _update_bytes(config)
  models = 2 if kl else 1
  place = models * 4 * V
  whole = place * Q * G * S
  chunks = -(-Q * G * S // (logps.BUDGET // place))
  chunk = place * -(-Q * G * S // chunks)
  # Besides, the gradient of the token table and the states.
  expected = copies * chunk
  assert 2 * chunk <= used < expected + whole / 10 < whole / 1.8
