"""The matmul helper against jnp.einsum, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.lm import dots

SIZES = dict(b=2, t=3, d=5, f=4, v=6, m=2, r=3, h=4, s=3, q=2, g=3, p=5)
SPECS = [
  'btd,df->btf',
  'btd,vd->btv',
  'btmrh,bsmh->bmrts',
  'bmrts,bsmh->btmrh',
  'qgtmrh,qmph->qmgrtp',
  'qgtmrh,qmhp->qmgrtp',
  'qmgrtp,qmph->qgtmrh',
  'qgtmrh,qgmsh->qmgrts',
  'qgtmrh,qgmhs->qmgrts',
  'qgtmrh,qgmhs->qgmrts',
  'qmgrts,qgmsh->qgtmrh',
]


def _operands(spec):
  rng = np.random.default_rng(len(spec))
  return [
    rng.normal(size=[SIZES[c] for c in names]).astype(np.float32)
    for names in spec.split('->')[0].split(',')
  ]


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('spec', SPECS)
def test_values_and_gradients(spec, bf16):
  x, y = _operands(spec)
  run = lambda f: jax.jit(
    lambda x, y: jax.value_and_grad(lambda *a: jnp.sin(f(*a)).sum(), (0, 1))(
      x, y
    )
  )(x, y)
  got, (dx, dy) = run(lambda x, y: dots.einsum(spec, x, y, bf16))
  want, (wx, wy) = run(lambda x, y: jnp.einsum(spec, x, y))
  # float32: rounding of sums of a few terms; bfloat16: 8 bits of mantissa.
  tolerance = dict(rtol=0, atol=0.2 if bf16 else 1e-4)
  np.testing.assert_allclose(got / x.size, want / x.size, **tolerance)
  np.testing.assert_allclose(dx, wx, **tolerance)
  np.testing.assert_allclose(dy, wy, **tolerance)


def test_float32_gradients_copy_the_smaller_operand():
  """Of a table's, the states [b, t, d], not the far larger [b, t, v]."""
  x, y = np.ones((2, 3, 5), np.float32), np.ones((60, 5), np.float32)

  def first_operand(bf16):
    loss = lambda y: dots.einsum('btd,vd->btv', x, y, bf16).sum()
    equations = jax.make_jaxpr(jax.grad(loss))(y).eqns
    products = [e for e in equations if e.primitive.name == 'dot_general']
    return products[-1].invars[0].aval.shape

  assert first_operand(False) == (2, 3, 5)
  # In that order XLA on CPU has no kernel for bfloat16.
  assert first_operand(True) == (2, 3, 60)


def test_bfloat16_rounds_operands_and_sums_in_float32():
  x = np.array([[1 + 2**-9, 1.0]], np.float32)  # 1 + 2**-9 rounds to 1
  y = np.array([[1.0], [2**-12]], np.float32)  # the sum keeps 2**-12
  out = dots.einsum('td,df->tf', x, y, True)
  assert out.dtype == jnp.float32 and float(out[0, 0]) == 1 + 2**-12
  assert float(dots.einsum('td,df->tf', x, y, False)[0, 0]) > 1 + 2**-9


def test_bfloat16_operands_keep_their_type_in_gradients():
  x, y = (jnp.asarray(a, jnp.bfloat16) for a in _operands('btd,df->btf'))
  grads = jax.grad(
    lambda *a: dots.einsum('btd,df->btf', *a, True).sum(), (0, 1)
  )(x, y)
  assert [g.dtype for g in grads] == [jnp.bfloat16] * 2
