"""Attention within rows by fused kernels, in place of `attention.attend`.

`xla` and `cudnn` are `jax.nn.dot_product_attention`; `splash` is the Pallas
kernel for TPUs, interpreted on CPU so that it can be tested there.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import PartitionSpec

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.lm.config import LMConfig

# Where a kernel runs; 'plain' and 'xla' run anywhere.
_PLATFORMS = {
  'cudnn': ('gpu', 'cuda'),
  'splash': ('tpu', 'cpu'),
}
# The kernel's tiles are as wide as a TPU's vector registers.
_LANES = 128
# Widest tiles first (our choice).
_BLOCKS = (512, 256, 128)


def _platform() -> str:
  """Returns where the program will run: the mesh's devices decide."""
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh.empty else mesh.abstract_device
  return device.platform if device else jax.default_backend()


def check_platform(config: LMConfig) -> None:
  """Raises a ValueError where the kernel does not run on this platform."""
  platform = _platform()
  known = _PLATFORMS.get(config.attention, (platform,))
  if platform not in known:
    raise ValueError(
      f'LMConfig.attention = {config.attention!r} runs on {known[0]}, not on '
      f"{platform}: choose 'plain' or 'xla' here."
    )


def attend(
  config: LMConfig,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array | None,
  *,
  segments: jax.Array | None,
) -> jax.Array:
  """Attends within each row, by the kernel of `config.attention`.

  Args:
    config: of the model; `attention` is not 'plain'.
    q: [B, T, N, H], scaled.
    k: [B, T, M, H].
    v: [B, T, M, H].
    mask: bool [B or 1, T, T], for 'xla' and 'cudnn'.
    segments: int [B, T] or None, for 'splash', which is causal by itself.

  Returns:
    float32 [B, T, N, H].

  Raises:
    ValueError: sizes that the kernel or the mesh does not take.
  """
  # The kernels multiply operands as they come, and return their type.
  kind = jnp.bfloat16 if config.bf16_matmul else jnp.float32
  q, k, v = (x.astype(kind) for x in (q, k, v))
  if config.attention == 'splash':
    out = _on_mesh(_splash, q, k, v, segments)
  elif config.attention == 'cudnn':
    # XLA can split only its own products.
    out = _on_mesh(functools.partial(_dot_product, 'cudnn'), q, k, v, mask)
  else:
    out = _dot_product('xla', q, k, v, mask)
  return out.astype(jnp.float32)


def _dot_product(
  implementation: str,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array,
) -> jax.Array:
  return jax.nn.dot_product_attention(
    q,
    k,
    v,
    mask=mask[:, None],
    scale=1.0,
    # The mask says so already, but cuDNN then skips half of the work.
    is_causal=implementation == 'cudnn',
    implementation=implementation,
  )


def _splash(
  q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None
) -> jax.Array:
  """Runs the TPU kernel on one device's rows and heads."""
  _, given, heads, _ = q.shape
  # Whole tiles: what is added comes after every real token, so none sees it.
  length = padding.round_up(given, _LANES)
  more = ((0, 0), (0, length - given))
  q, k, v = (jnp.pad(x, (*more, (0, 0), (0, 0))) for x in (q, k, v))
  block = next(b for b in _BLOCKS if length % b == 0)
  # Made here, inside of `shard_map`, so that its tables are constants there.
  # The multi-head variant takes grouped heads as they are: its index maps send
  # query head n to key head n // (N / M), so nothing is repeated.
  mask = splash.MultiHeadMask([splash.CausalMask((length, length))] * heads)
  kernel = splash.make_splash_mha_single_device(
    mask,
    block_sizes=splash.BlockSizes(
      block_q=block,
      block_kv=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_q_dq=block,
      block_kv_dq=block,
    ),
    interpret=_platform() == 'cpu',
  )
  q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
  if segments is not None:
    segments = jnp.pad(segments, more)
    segments = splash.SegmentIds(segments, segments)
  out = jax.vmap(kernel)(q, k, v, segments).transpose(0, 2, 1, 3)
  return out[:, :given]


def _on_mesh(
  run: Callable[..., jax.Array],
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  rows: jax.Array | None,
) -> jax.Array:
  """Runs a kernel that XLA cannot split, on each device's rows and heads.

  Args:
    run: `(q, k, v, rows) -> [B, T, N, H]`.
    q: [B, T, N, H].
    k: [B, T, M, H].
    v: [B, T, M, H].
    rows: [B or 1, T, ...] or None.

  Returns:
    float [B, T, N, H], as `run` computes it.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return run(q, k, v, rows)
  parts, split = sharding.batch_parts(mesh), mesh.shape['tensor']
  for name, size, by, axes in (
    ('rows', q.shape[0], parts, sharding.BATCH),
    ('query heads', q.shape[2], split, 'tensor'),
  ):
    if size % by:
      raise ValueError(
        f'{size} {name} do not divide by {by}, the size of mesh axes {axes}: '
        "change their number or config.mesh, or set LMConfig.attention = 'xla'."
      )
  # Fewer key heads than devices: each device needs the one of its queries.
  copies = split // math.gcd(split, k.shape[2])
  if copies > 1:
    k, v = (jnp.repeat(x, copies, axis=2) for x in (k, v))
  heads = PartitionSpec(sharding.BATCH, None, 'tensor')
  batch = PartitionSpec()
  if rows is not None and len(rows) == len(q):
    batch = PartitionSpec(sharding.BATCH)
  return jax.shard_map(
    run,
    in_specs=(heads, heads, heads, batch),
    out_specs=heads,
    # The kernels do not say over which axes their results vary.
    check_vma=False,
  )(q, k, v, rows)
