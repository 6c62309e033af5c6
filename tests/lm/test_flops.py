"""FLOPs: by hand, and against what XLA counts in an unrolled program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import decoder, flops
from gr2_jax.lm.config import LMConfig

TINY = LMConfig(
  vocab_size=10, width=3, layers=2, heads=2, kv_heads=1, head_dim=4, mlp_dim=5
)


def test_by_hand():
  # Query 3 x 8, key and value 3 x 4, out 8 x 3; three products of 3 x 5.
  kernels = 2 * (24 + 12 + 12 + 24 + 45)
  assert flops.weights(TINY) == (kernels, 30)
  # Two products of 2 heads x 4 with each key, in two layers.
  attention = 2 * 2 * 2 * 8 * 11
  assert flops.layers(TINY, 7, 11) == 2 * 7 * kernels + attention
  assert flops.unembedding(TINY, 7) == 2 * 7 * 30
  assert flops.forward(TINY, 7, 11) == 2 * 7 * (kernels + 30) + attention
  whole = flops.training(TINY, 7, 11)
  assert whole == 3 * flops.forward(TINY, 7, 11)
  assert flops.training(TINY, 7, 11, False) == whole - 2 * 7 * kernels


def test_lora_adds_its_products():
  lora = dataclasses.replace(TINY, lora_rank=2)
  # Inputs and outputs of each projection.
  sums = 11 + 7 + 7 + 11 + 8 + 8 + 8
  assert flops.weights(lora)[1] == 30 + 2 * 2 * sums
  assert flops.weights(lora)[0] == flops.weights(TINY)[0]
  assert (flops.passes(TINY), flops.passes(lora)) == (3, 2)


def test_keys_of_a_causal_row():
  assert flops.causal_keys(4) == 1 + 2 + 3 + 4


def test_weights_are_those_of_the_model():
  """All parameters but the vectors."""
  config = dataclasses.replace(TINY, lora_rank=2)
  shapes = jax.eval_shape(
    lambda key: decoder.Decoder(config).init(key, jnp.zeros((1, 2), int)),
    jax.random.key(0),
  )
  sizes = [x.size for x in jax.tree.leaves(shapes) if x.ndim > 1]
  assert sum(sizes) == sum(flops.weights(config))


def test_a_batch_counts_its_tokens_and_the_keys_that_they_see():
  segments = np.array([[1, 1, 1, 2, 2, 0], [1, 0, 0, 0, 0, 0]])
  positions = np.array([[0, 1, 2, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
  work = flops.of_batch(TINY, {'segments': segments, 'positions': positions})
  # 1 + 2 + 3, 1 + 2, 1.
  assert work == {'tokens': 6, 'flops': flops.training(TINY, 6, 10)}


@pytest.mark.parametrize('layers', [1, 2])
def test_xla_counts_the_same(layers):
  config = LMConfig(
    vocab_size=256, width=128, layers=layers, heads=4, kv_heads=2, head_dim=32,
    mlp_dim=384,
  )  # fmt: skip
  tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)
  model = decoder.Decoder(config)
  params = jax.eval_shape(model.init, jax.random.key(0), tokens)
  counted = jax.jit(model.apply).lower(params, tokens).cost_analysis()['flops']
  # The plain attention multiplies with all 64 keys and masks afterwards.
  ours = flops.forward(config, 2 * 64, 2 * 64 * 64)
  # Norms, rotations, softmax and activations are what XLA counts besides.
  assert 1 < counted / ours < 1.1
