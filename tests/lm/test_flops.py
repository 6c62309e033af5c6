"""FLOPs by formula, against hand-computed numbers and a count of products."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from gr2_jax.lm import decoder, flops
from gr2_jax.lm.config import LMConfig

TINY = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)


def test_a_block_by_hand():
  # Query and output 16 x 32, key and value 16 x 16, feed-forward 3 x 16 x 32.
  block = 2 * 16 * 32 + 2 * 16 * 16 + 3 * 16 * 32
  # A pair costs H products for its score and H for its value, for N heads.
  assert flops.layers(TINY, 1, 0) == 2 * 2 * block
  assert flops.layers(TINY, 0, 1) == 2 * 2 * 2 * 8 * 4
  assert flops.unembedding(TINY, 3) == 2 * 3 * 16 * 64
  assert flops.causal_pairs(4) == 10
  untied = dataclasses.replace(TINY, tie_embeddings=False)
  assert flops.layers(untied, 5, 7) == flops.layers(TINY, 5, 7)
  lora = dataclasses.replace(TINY, lora_rank=2)
  more = 2 * 2 * (2 * (16 + 32) + 2 * (16 + 16) + 3 * (16 + 32))
  assert flops.layers(lora, 1, 0) == 2 * 2 * block + 2 * more
  assert (flops.passes(TINY), flops.passes(lora)) == (3, 2)


def test_the_compiler_counts_the_same_products():
  config = dataclasses.replace(TINY, width=256, mlp_dim=512, head_dim=64)
  params = jax.eval_shape(decoder.init_fn(config), jax.random.key(0))
  tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)
  run = lambda params, tokens: decoder.Decoder(config).apply(
    {'params': params}, tokens
  )
  compiled = jax.jit(run).lower(params, tokens).compile()
  want = flops.layers(config, 2 * 64, 2 * 64 * 64)
  want += flops.unembedding(config, 2 * 64)
  # The rest is norms, rotations and the softmax.
  assert compiled.cost_analysis()['flops'] == pytest.approx(want, rel=0.05)
