"""The one matmul of the models: chooses operand order and operand type.

On CPU only some layouts of a product reach the fast kernels, and autodiff
writes the gradients in layouts that miss them; this helper writes forward and
backward products itself, with the operand that owns the output's first free
axis first.
"""

import functools

import jax
import jax.numpy as jnp


def _names(spec: str) -> tuple[str, str, str]:
  inputs, out = spec.split('->')
  x, y = inputs.split(',')
  return x, y, out


def _dot(
  x: jax.Array, y: jax.Array, xs: str, ys: str, out: str, bf16: bool
) -> jax.Array:
  batch = [c for c in out if c in xs and c in ys]
  free = [c for c in out if c not in batch]
  if free and free[0] in ys:
    x, y, xs, ys = y, x, ys, xs
  summed = [c for c in xs if c in ys and c not in out]
  kind = jnp.bfloat16 if bf16 else jnp.float32
  x, y = x.astype(kind), y.astype(kind)
  product = jax.lax.dot_general(
    x,
    y,
    (
      ([xs.index(c) for c in summed], [ys.index(c) for c in summed]),
      ([xs.index(c) for c in batch], [ys.index(c) for c in batch]),
    ),
    preferred_element_type=jnp.float32,
  )
  names = (
    batch
    + [c for c in xs if c not in batch and c not in summed]
    + [c for c in ys if c not in batch and c not in summed]
  )
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
  xs, ys, out = _names(spec)
  return _dot(x, y, xs, ys, out, bf16)


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
  dx = _dot(g, y, out, ys, xs, bf16)
  dy = _dot(g, x, out, xs, ys, bf16)
  return dx.astype(kinds[0].dtype), dy.astype(kinds[1].dtype)


einsum.defvjp(_forward, _backward)
