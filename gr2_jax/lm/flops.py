"""FLOPs of the decoder by formula: two for each multiplication and addition.

Only products count. The compiler's own count is no use here: it counts the body
of a scan once.
"""

from gr2_jax.lm.config import LMConfig


def layers(config: LMConfig, tokens: float, pairs: float) -> float:
  """Returns the FLOPs of one forward pass through all blocks.

  Args:
    config: shape of the model.
    tokens: that go through the blocks.
    pairs: of a query and a key that attend, summed over the rows.
  """
  tables = (1 if config.tie_embeddings else 2) * config.vocab_size
  norms = (
    config.layers * 2 * (config.width + config.head_dim * config.qk_norm)
    + config.width
  )
  # Biases count as products: they are few.
  weights = config.num_params - tables * config.width - norms
  attention = 4.0 * config.layers * config.heads * config.head_dim
  return 2.0 * tokens * weights + attention * pairs


def unembedding(config: LMConfig, tokens: float) -> float:
  """Returns the FLOPs of the logits of so many tokens, forward."""
  return 2.0 * tokens * config.vocab_size * config.width


def causal_pairs(length: int) -> float:
  """Returns the pairs of a row of T tokens: T (T + 1) / 2."""
  return length * (length + 1) / 2


def passes(config: LMConfig) -> float:
  """Returns what a training step costs in forward passes.

  Backward takes two: of the inputs and of the weights. With LoRA the frozen
  kernels need no gradient, and what the small matrices add is left out.

  Args:
    config: shape of the model.
  """
  return 2.0 if config.lora_rank else 3.0
