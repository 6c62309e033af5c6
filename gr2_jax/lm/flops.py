"""FLOPs of the decoder by formula: products of matrices, two a weight.

What a program recomputes to save memory is not counted, nor are norms, rotary
positions and softmax: this is the numerator of MFU (Chowdhery et al., arXiv
2204.02311, appendix B), but with the keys that each token does attend to.
"""

from collections.abc import Mapping

import numpy as np

from gr2_jax.lm.config import LMConfig


def weights(config: LMConfig) -> tuple[int, int]:
  """Returns the weights that a token is multiplied with.

  Args:
    config: shape of the model.

  Returns:
    (those of the kernels; those of LoRA and of the output table).
  """
  q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
  # (inputs, outputs) of a block's projections.
  projections = (
    *((config.width, q), (config.width, kv), (config.width, kv)),
    (q, config.width),
    *((config.width, config.mlp_dim), (config.width, config.mlp_dim)),
    (config.mlp_dim, config.width),
  )
  kernels = sum(inputs * outputs for inputs, outputs in projections)
  lora = config.lora_rank * sum(map(sum, projections))
  table = config.vocab_size * config.width
  return config.layers * kernels, config.layers * lora + table


def layers(config: LMConfig, tokens: float, keys: float) -> float:
  """Returns the FLOPs of one forward pass through all blocks.

  Args:
    config: shape of the model.
    tokens: that go through the blocks.
    keys: keys that they attend to, summed over the tokens.
  """
  kernels, others = weights(config)
  matrices = kernels + others - config.vocab_size * config.width
  attention = 4 * config.layers * config.heads * config.head_dim
  return 2 * matrices * tokens + attention * keys


def unembedding(config: LMConfig, tokens: float) -> float:
  """Returns the FLOPs of the logits of a number of tokens, forward."""
  return 2 * config.vocab_size * config.width * tokens


def forward(config: LMConfig, tokens: float, keys: float) -> float:
  """Returns the FLOPs of scoring tokens: `layers` and `unembedding`."""
  return layers(config, tokens, keys) + unembedding(config, tokens)


def causal_keys(length: int) -> float:
  """Returns the keys that the T tokens of a row see: T (T + 1) / 2."""
  return length * (length + 1) / 2


def passes(config: LMConfig) -> float:
  """Returns what a training step costs in forward passes.

  Backward takes two: of the inputs and of the weights. With LoRA the frozen
  kernels need no gradient, and what the small matrices add is left out.

  Args:
    config: shape of the model.
  """
  return 2.0 if config.lora_rank else 3.0


def training(
  config: LMConfig, tokens: float, keys: float, kernels_train: bool = True
) -> float:
  """Returns the FLOPs of a forward and a backward pass; see `forward`.

  Args:
    config: shape of the model.
    tokens: how many.
    keys: as `forward` takes them.
    kernels_train: whether kernels get gradients; where only new rows or LoRA
      train, they are passed through alone.
  """
  whole = 3 * forward(config, tokens, keys)
  return whole - (0 if kernels_train else 2 * weights(config)[0] * tokens)


def of_batch(
  config: LMConfig, batch: Mapping[str, np.ndarray], kernels_train: bool = True
) -> dict[str, float]:
  """Returns the work of training on a batch: `tokens` and `flops`.

  Args:
    config: shape of the model.
    batch: of `data.pipeline`, [B, T]; its padding is no work.
    kernels_train: as in `training`.
  """
  inside = batch['segments'] > 0
  tokens = int(inside.sum())
  keys = int(batch['positions'][inside].sum()) + tokens
  return {
    'tokens': tokens,
    'flops': training(config, tokens, keys, kernels_train),
  }
