"""The shape of the decoder LLM, and the settings that lead to one."""

import dataclasses
from typing import Any, Literal

# Of a size that a checkpoint names; more is no model but a damaged file.
MOST = 2**24
# The deepest models have some hundreds.
_MOST_LAYERS = 2**12


@dataclasses.dataclass(frozen=True)
class Settings:
  """What settings and the shape of a model share.

  A decoder of the families Qwen3, Qwen2, Llama 2 and 3, and SmolLM2. The
  defaults are Qwen3's layout; `lm/hf_config.py` says what makes the others.

  Attributes:
    width: D, the residual stream.
    layers: number of blocks.
    heads: N, query heads.
    kv_heads: M, key/value heads; divides N.
    head_dim: H, even.
    mlp_dim: F, width of the SwiGLU feed-forward.
    max_positions: longest sequence that a checkpoint was trained for, as it
      says; 0 where nothing says it. Only exported: nothing here has a limit.
    rope_theta: base of the rotary frequencies (Qwen3).
    rope_scaling: Llama 3's slower rotation of the low frequencies: (factor,
      low_freq_factor, high_freq_factor, original_max_position_embeddings);
      empty for none.
    norm_eps: added to the mean square in RMSNorm (Qwen3).
    qk_norm: RMSNorm on each head's query and key (Qwen3).
    qkv_bias: biases of the query, key and value projections (Qwen2).
    out_bias: a bias of attention's output projection.
    mlp_bias: biases of the feed-forward.
    tie_embeddings: the output projection is the token table.
    param_dtype: of the kernels. Tables, norms, biases and LoRA are float32:
      the tables have the new rows, which are trained.
    lora_rank: r of the low-rank updates of all projections (Hu et al., arXiv
      2106.09685); 0 for none.
    lora_alpha: the updates are scaled by alpha / r.
    bf16_matmul: matmul operands in bfloat16, sums in float32. Off: all float32.
    scan: one scanned block for all layers: compiles faster, but costs about a
      third of the speed on CPU.
    attention: what computes attention within rows (training and prefill; the
      groups that share a prompt have their own): 'plain', products and a
      softmax of ours, fastest on CPU; 'xla', JAX's `dot_product_attention`;
      'cudnn', the same on NVIDIA's kernel, which never holds [T, T] scores;
      'splash', the same for TPUs, which fills rows up to a multiple of 128
      tokens (elsewhere only on CPU, interpreted, for tests).
    remat: recompute each block in the backward pass.
  """

  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_dim: int
  max_positions: int = 0
  rope_theta: float = 1e6
  rope_scaling: tuple[float, ...] = ()
  norm_eps: float = 1e-6
  qk_norm: bool = True
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  tie_embeddings: bool = True
  param_dtype: Literal['float32', 'bfloat16'] = 'float32'
  lora_rank: int = 0
  lora_alpha: float = 16.0
  bf16_matmul: bool = False
  attention: Literal['plain', 'xla', 'cudnn', 'splash'] = 'plain'
  scan: bool = False
  remat: bool = False

  def __post_init__(self):
    for name in ('width', 'layers', 'heads', 'kv_heads', 'head_dim', 'mlp_dim'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'lm.{name} is {getattr(self, name)}: give a positive size.'
        )
      most = _MOST_LAYERS if name == 'layers' else MOST
      if getattr(self, name) > most:
        raise ValueError(
          f'lm.{name} is {getattr(self, name)}: give a size up to {most}.'
        )
    if self.heads % self.kv_heads:
      raise ValueError(
        f'lm.heads = {self.heads} does not divide by kv_heads = '
        f'{self.kv_heads}: each key/value head serves heads / kv_heads queries.'
      )
    if len(self.rope_scaling) not in (0, 4):
      raise ValueError(
        f'lm.rope_scaling = {self.rope_scaling}: give factor, '
        'low_freq_factor, high_freq_factor and '
        'original_max_position_embeddings, or nothing.'
      )
    if self.param_dtype not in ('float32', 'bfloat16'):
      raise ValueError(
        f'lm.param_dtype = {self.param_dtype!r}: choose float32 or bfloat16.'
      )
    if self.attention not in ('plain', 'xla', 'cudnn', 'splash'):
      raise ValueError(
        f'lm.attention = {self.attention!r}: choose plain, xla, cudnn or '
        'splash.'
      )
    if self.attention == 'cudnn' and not self.bf16_matmul:
      raise ValueError(
        "lm.attention = 'cudnn' with bf16_matmul = False: cuDNN's kernel "
        "has no float32; set bf16_matmul = True or choose 'xla'."
      )
    if self.lora_rank < 0:
      raise ValueError(f'lm.lora_rank = {self.lora_rank} is negative.')
    if self.head_dim % 2:
      raise ValueError(
        f'lm.head_dim = {self.head_dim} is odd: rotary positions need pairs.'
      )


@dataclasses.dataclass(frozen=True)
class LMConfig(Settings):
  """The shape of a model.

  Attributes:
    vocab_size: V, rows of the token table.
    dropout: share of activations that training drops, of the embedding and of
      what each layer adds; none without an RNG 'dropout'.
  """

  vocab_size: int = dataclasses.field(kw_only=True)
  dropout: float = dataclasses.field(default=0.0, kw_only=True)

  def __post_init__(self):
    super().__post_init__()
    if self.vocab_size < 1:
      raise ValueError(
        f'lm.vocab_size is {self.vocab_size}: give a positive size.'
      )
    if not 0 <= self.dropout <= 0.99:
      raise ValueError(f'lm.dropout = {self.dropout} must be 0 to 0.99.')

  @property
  def num_params(self) -> int:
    """Number of parameters, those of LoRA included."""
    q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
    # (inputs, outputs, has a bias) of a block's projections.
    projections = (
      (self.width, q, self.qkv_bias),
      (self.width, kv, self.qkv_bias),
      (self.width, kv, self.qkv_bias),
      (q, self.width, self.out_bias),
      (self.width, self.mlp_dim, self.mlp_bias),
      (self.width, self.mlp_dim, self.mlp_bias),
      (self.mlp_dim, self.width, self.mlp_bias),
    )
    block = 2 * self.width + 2 * self.head_dim * self.qk_norm
    for inputs, outputs, bias in projections:
      block += inputs * outputs + bias * outputs
      block += self.lora_rank * (inputs + outputs)
    tables = (1 if self.tie_embeddings else 2) * self.vocab_size * self.width
    return self.layers * block + tables + self.width


# How a model is run, which no checkpoint fixes.
RUNTIME = ('bf16_matmul', 'param_dtype', 'scan', 'remat', 'attention')
_LORA = ('lora_rank', 'lora_alpha')


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
  """The model that a run trains.

  The sizes are our choice for a CPU: about two million parameters with a
  vocabulary of 4,000 tokens. With `pretrained` they are the checkpoint's: sizes
  other than these defaults are refused, and those that stay here are not read.
  Only how the model is run (`RUNTIME`) and LoRA can be chosen then.

  Attributes:
    pretrained: a Hugging Face directory, a GGUF file, or an asset that holds
      one (`run/pretrained.py`); empty for a model from scratch.
  """

  pretrained: str = ''
  width: int = 160
  layers: int = 4
  heads: int = 4
  kv_heads: int = 2
  head_dim: int = 40
  mlp_dim: int = 480
  bf16_matmul: bool = True

  def __post_init__(self):
    super().__post_init__()
    if not self.pretrained:
      return
    chosen = {'pretrained', *RUNTIME, *_LORA}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name not in chosen and value != field.default:
        raise ValueError(
          f'lm.{field.name} = {value!r} beside lm.pretrained = '
          f'{self.pretrained!r}: the checkpoint fixes the model; leave it at '
          f'{field.default!r}, or lm.pretrained empty.'
        )

  def shape(self, vocab_size: int) -> LMConfig:
    """Returns the shape of a model from scratch.

    Args:
      vocab_size: V.
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    return LMConfig(
      vocab_size=vocab_size, **{name: getattr(self, name) for name in names}
    )

  @property
  def runtime(self) -> dict[str, Any]:
    """How the model is run: the fields of `RUNTIME`."""
    return {name: getattr(self, name) for name in RUNTIME}
