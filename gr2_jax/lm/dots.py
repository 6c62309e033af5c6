"""The one matmul of the models: chooses operand order and operand type.

On CPU only some layouts of a product reach the fast kernels: XLA copies other
layouts, on one core, and autodiff ignores this in the gradients. This helper
writes forward and backward products itself.
"""

import functools
import math

import jax
import jax.numpy as jnp


def _names(spec: str) -> tuple[str, str, str]:
  inputs, out = spec.split('->')
  x, y = inputs.split(',')
  return x, y, out


def _moved(xs: str, ys: str, out: str, sizes: dict[str, int]) -> int:
  """Counts the elements that XLA copies for a product with `xs` first.

  Its kernel reads [batch, free, summed] and [batch, summed, free] (or the
  latter's last two changed), and writes [batch, free of x, free of y].

  Args:
    xs: letters of the first operand.
    ys: letters of the second.
    out: letters of the result.
    sizes: of the axes.
  """
  batch, summed, x_free, y_free = _roles(xs, ys, out, sizes)
  size = lambda names: _size(names, sizes)
  return (
    (xs != batch + x_free + summed) * size(xs)
    + (ys not in (batch + summed + y_free, batch + y_free + summed)) * size(ys)
    + (out != batch + x_free + y_free) * size(out)
  )


def _roles(
  xs: str, ys: str, out: str, sizes: dict[str, int]
) -> tuple[str, str, str, str]:
  """Returns letters: batch, summed (as the larger has them), free of each."""
  batch = ''.join(c for c in out if c in xs and c in ys)
  free = [
    ''.join(c for c in s if c in out and c not in batch) for s in (xs, ys)
  ]
  larger = max(xs, ys, key=lambda names: _size(names, sizes))
  return batch, ''.join(c for c in larger if c not in out), *free


def _size(names: str, sizes: dict[str, int]) -> int:
  return math.prod(sizes[c] for c in names)


def _dot(
  x: jax.Array, y: jax.Array, names: tuple[str, str, str], bf16: bool
) -> jax.Array:
  xs, ys, out = names
  sizes = dict(zip(xs + ys, x.shape + y.shape, strict=True))
  if bf16:
    # The operand with the output's first free axis comes first. A result that
    # is transposed afterwards XLA on CPU turns into a product that reads its
    # first operand transposed, for which it has no bfloat16 kernel: an error.
    swap = next((c in ys for c in out if not (c in xs and c in ys)), False)
  else:
    swap = _moved(ys, xs, out, sizes) < _moved(xs, ys, out, sizes)
  if swap:
    x, y, xs, ys = y, x, ys, xs
  batch, summed, x_free, y_free = _roles(xs, ys, out, sizes)
  kind = jnp.bfloat16 if bf16 else jnp.float32
  product = jax.lax.dot_general(
    x.astype(kind),
    y.astype(kind),
    (
      ([xs.index(c) for c in summed], [ys.index(c) for c in summed]),
      ([xs.index(c) for c in batch], [ys.index(c) for c in batch]),
    ),
    preferred_element_type=jnp.float32,
  )
  names = batch + x_free + y_free
  return jnp.transpose(product, [names.index(c) for c in out])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def einsum(spec: str, x: jax.Array, y: jax.Array, bf16: bool) -> jax.Array:
  """Contracts two arrays.

  Args:
    spec: such as 'btd,df->btf'. Each letter of an operand stands in the other
      operand or in the output.
    x: first operand.
    y: second operand.
    bf16: operands (of the gradients, too) are rounded to bfloat16; sums and
      result are float32 in any case.

  Returns:
    The float32 product. The gradients have the operands' types.
  """
  return _dot(x, y, _names(spec), bf16)


def _forward(spec, x, y, bf16):
  kinds = jnp.zeros((0,), x.dtype), jnp.zeros((0,), y.dtype)
  if bf16:
    # Saved as rounded: half the memory, and no second rounding, which XLA
    # would fuse into the backward products and slow them.
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
  return einsum(spec, x, y, bf16), (x, y, kinds)


def _backward(spec, bf16, saved, g):
  x, y, kinds = saved
  xs, ys, out = _names(spec)
  if bf16:
    g = g.astype(jnp.bfloat16)
  dx = _dot(g, y, (out, ys, xs), bf16)
  dy = _dot(g, x, (out, xs, ys), bf16)
  return dx.astype(kinds[0].dtype), dy.astype(kinds[1].dtype)


einsum.defvjp(_forward, _backward)
