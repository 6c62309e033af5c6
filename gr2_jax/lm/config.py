"""The shape of the decoder LLM."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LMConfig:
  """A Qwen3-style decoder. Sizes are our choice; the layout is Qwen3's.

  Attributes:
    vocab_size: V, rows of the token table.
    width: D, the residual stream.
    layers: number of blocks.
    heads: N, query heads.
    kv_heads: M, key/value heads; divides N.
    head_dim: H, even.
    mlp_dim: F, width of the SwiGLU feed-forward.
    rope_theta: base of the rotary frequencies (Qwen3).
    norm_eps: added to the mean square in RMSNorm (Qwen3).
    qk_norm: RMSNorm on each head's query and key (Qwen3).
    tie_embeddings: the output projection is the token table.
    bf16_matmul: matmul operands in bfloat16, sums in float32. Off: all float32.
    scan: one scanned block for all layers: compiles faster, but costs about a
      third of the speed on CPU.
    remat: recompute each block in the backward pass.
    dropout: share of activations that training drops, of the embedding and of
      what each layer adds; none without an RNG 'dropout'.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 1e6
  norm_eps: float = 1e-6
  qk_norm: bool = True
  tie_embeddings: bool = True
  bf16_matmul: bool = False
  scan: bool = False
  remat: bool = False
  dropout: float = 0.0

  def __post_init__(self):
    for name in (
      'vocab_size',
      'width',
      'layers',
      'heads',
      'kv_heads',
      'head_dim',
      'mlp_dim',
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f'LMConfig.{name} is {getattr(self, name)}: give a positive size.'
        )
    if self.heads % self.kv_heads:
      raise ValueError(
        f'LMConfig.heads = {self.heads} does not divide by kv_heads = '
        f'{self.kv_heads}: each key/value head serves heads / kv_heads queries.'
      )
    if not 0 <= self.dropout <= 0.99:
      raise ValueError(f'LMConfig.dropout = {self.dropout} must be 0 to 0.99.')
    if self.head_dim % 2:
      raise ValueError(
        f'LMConfig.head_dim = {self.head_dim} is odd: rotary positions need '
        'pairs.'
      )

  @property
  def num_params(self) -> int:
    """Number of parameters."""
    attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
    norms = 2 * self.width + 2 * self.head_dim * self.qk_norm
    block = attention + 3 * self.width * self.mlp_dim + norms
    tables = (1 if self.tie_embeddings else 2) * self.vocab_size * self.width
    return self.layers * block + tables + self.width
