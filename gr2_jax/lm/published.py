"""Shapes of published models, to plan for them without their weights.

The numbers are those of the `config.json` files of huggingface.co/Qwen, and of
the tokenizer beside them (151,643 pieces and 26 special tokens).
"""

from typing import Any

_QWEN3 = {
  'architectures': ['Qwen3ForCausalLM'],
  'model_type': 'qwen3',
  'vocab_size': 151_936,
  'num_key_value_heads': 8,
  'head_dim': 128,
  'hidden_act': 'silu',
  'max_position_embeddings': 40_960,
  'rms_norm_eps': 1e-6,
  'rope_theta': 1_000_000,
  'rope_scaling': None,
  'attention_bias': False,
  'use_sliding_window': False,
}
# Tokens of the tokenizer; the other rows of the tables are padding.
TOKENS = 151_669


def _qwen3(
  width: int, layers: int, heads: int, mlp: int, tied: bool
) -> dict[str, Any]:
  return {
    **_QWEN3,
    'hidden_size': width,
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'intermediate_size': mlp,
    'tie_word_embeddings': tied,
  }


# Content of `config.json` by the last part of the model's name.
CONFIGS = {
  'Qwen3-0.6B': _qwen3(1024, 28, 16, 3072, tied=True),
  'Qwen3-1.7B': _qwen3(2048, 28, 16, 6144, tied=True),
  'Qwen3-8B': _qwen3(4096, 36, 32, 12_288, tied=False),
  'Qwen3-32B': _qwen3(5120, 64, 64, 25_600, tied=False),
}
