"""Every attention kernel against our own products."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import attention, decoder, hf_config, kernels
from gr2_jax.lm.config import RUNTIME, LMConfig

# The shortest rows that the TPU kernel takes.
T = 128
TINY = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)
# The same sums in other orders (the TPU kernel rescales them block by block);
# float32 rounds at 6e-8, values and gradients are of size 1 to 10.
EXACT = dict(rtol=0, atol=2e-5)
# The kernels round their results and the weights of a sum to bfloat16 (4e-3),
# ours only the operands; values are of size 1.
ROUGH = dict(rtol=0, atol=5e-2)
KERNELS = ('xla', 'splash')


def _segments(rows, seed=0):
  """Three to four segments a row, then padding of a length of its own."""
  rng = np.random.default_rng(seed)
  out = np.sort(rng.integers(1, 5, (rows, T)), axis=1)
  for row in out:
    row[T - rng.integers(1, 20) :] = 0
  return out


def _qkv(heads, kv_heads, rows=2, width=16):
  rng = np.random.default_rng(1)
  shapes = [(rows, T, n, width) for n in (heads, kv_heads, kv_heads)]
  q, k, v = (rng.normal(size=s).astype(np.float32) for s in shapes)
  return q * width**-0.5, k, v


def _config(name, heads, kv_heads, bf16=False):
  return dataclasses.replace(
    TINY, heads=heads, kv_heads=kv_heads, attention=name, bf16_matmul=bf16
  )


@functools.partial(jax.jit, static_argnums=0)
def _attend(config, qkv, segments):
  """Values, and gradients of a weighted sum of them."""

  def total(q, k, v):
    mask = attention.causal_mask(q.shape[1], segments)
    if config.attention == 'plain':
      out = attention.attend(q, k, v, mask, config.bf16_matmul)
    else:
      out = kernels.attend(config, q, k, v, mask, segments=segments)
    return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum(), out

  grads, out = jax.grad(total, (0, 1, 2), has_aux=True)(*qkv)
  return out, *grads


def _compare(got, want, tolerance):
  for a, b in zip(got, want, strict=True):
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize('heads, kv_heads', [(2, 2), (4, 2), (2, 1)])
@pytest.mark.parametrize('name', KERNELS)
def test_values_and_gradients(name, heads, kv_heads):
  args = _qkv(heads, kv_heads), _segments(2)
  got = _attend(_config(name, heads, kv_heads), *args)
  _compare(got, _attend(_config('plain', heads, kv_heads), *args), EXACT)


@pytest.mark.parametrize('name', KERNELS)
def test_one_segment_a_row(name):
  got = _attend(_config(name, 4, 2), _qkv(4, 2), None)
  _compare(got, _attend(_config('plain', 4, 2), _qkv(4, 2), None), EXACT)


def test_rows_that_fill_no_tile():
  qkv = tuple(x[:, :100] for x in _qkv(4, 2))
  args = qkv, _segments(2)[:, :100]
  got = _attend(_config('splash', 4, 2), *args)
  _compare(got, _attend(_config('plain', 4, 2), *args), EXACT)


@pytest.mark.parametrize('name', KERNELS)
def test_bfloat16_operands(name):
  args = _qkv(4, 2), _segments(2)
  got = _attend(_config(name, 4, 2, bf16=True), *args)
  want = _attend(_config('plain', 4, 2), *args)
  for a, b in zip(got, want, strict=True):
    scale = np.abs(b).max()
    _compare([a / scale], [b / scale], ROUGH)
  assert np.abs(got[0] - want[0]).max() > 1e-4


@pytest.mark.parametrize('kv_heads', [2, 1])
@pytest.mark.parametrize('name', KERNELS)
def test_eight_devices_compute_the_same(name, kv_heads, mesh8):
  """One key head is fewer than the two devices that split the heads."""
  config = _config(name, 4, kv_heads)
  args = _qkv(4, kv_heads, rows=4), _segments(4)
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    got = _attend(config, *sharding.shard_batch(mesh8, args))
  want = _attend(_config('plain', 4, kv_heads), *args)
  _compare(jax.device_get(got), want, EXACT)


@functools.cache
def _params():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  params = decoder.init(TINY, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  # Large enough for the layers to matter.
  params['embedding'] = params['embedding'] * 20
  return jax.device_get(params)


def _tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 64, shape).astype(np.int32)


@functools.cache
def _model(**changes):
  """Logits of packed rows, and the gradient of the parameters."""
  model = decoder.Decoder(dataclasses.replace(TINY, **changes))
  tokens, segments = _tokens(2, T), _segments(2)

  def total(params):
    logits = model.apply({'params': params}, tokens, None, segments)
    return jnp.square(logits).mean(), logits

  params = _params()
  if changes.get('scan'):
    layers = [params[f'layers_{i}'] for i in range(TINY.layers)]
    params = {k: v for k, v in params.items() if 'layers_' not in k}
    params['layers'] = jax.tree.map(lambda *x: np.stack(x), *layers)
  grads, logits = jax.jit(jax.grad(total, has_aux=True))(params)
  return logits, grads['embedding']


@pytest.mark.parametrize(
  'changes',
  [dict(attention='xla'), dict(attention='splash', scan=True, remat=True)],
)
def test_the_model(changes):
  _compare(_model(**changes), _model(), EXACT)


def _read(name):
  """States after prompts, and after prompts and tails."""
  model = decoder.Decoder(dataclasses.replace(TINY, attention=name))
  prompts, tails = _tokens(2, T), _tokens(2, 3, 4, seed=1)
  valid = np.arange(T)[None] < np.array([[T], [77]])

  @jax.jit
  def run(params):
    args = {'params': params}, prompts, valid
    last, _ = model.apply(*args, method='prefill')
    return last, model.apply(*args, tails, method='hidden_shared')

  return run(_params())


@pytest.mark.parametrize('name', KERNELS)
def test_prompts_and_their_tails(name):
  _compare(_read(name), _read('plain'), EXACT)


def test_cudnn_gets_what_it_asks_for(monkeypatch, mesh8):
  """It runs on NVIDIA GPUs alone, so the XLA kernel stands in for it."""
  calls = []
  whole = jax.nn.dot_product_attention

  def stand_in(q, k, v, **settings):
    calls.append((q, k, v, dict(settings)))
    return whole(q, k, v, **settings | {'implementation': 'xla'})

  monkeypatch.setattr(jax.nn, 'dot_product_attention', stand_in)
  config = _config('cudnn', 4, 2, bf16=True)
  args = _qkv(4, 2, rows=4), _segments(4)
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    got = _attend(config, *sharding.shard_batch(mesh8, args))
  q, k, v, settings = calls[0]
  # Each device has its own row and heads.
  assert q.shape == (1, T, 2, 16)
  assert k.shape == v.shape == (1, T, 1, 16)
  assert {x.dtype for x in (q, k, v)} == {jnp.dtype('bfloat16')}
  assert settings.pop('mask').shape == (1, 1, T, T)
  assert settings == dict(scale=1.0, is_causal=True, implementation='cudnn')
  want = _attend(_config('plain', 4, 2), *args)
  np.testing.assert_allclose(jax.device_get(got[0]), want[0], **ROUGH)


def test_what_cannot_run_is_refused_by_name(monkeypatch, mesh8):
  replace = functools.partial(dataclasses.replace, TINY)
  with pytest.raises(ValueError, match="attention = 'flash': choose plain"):
    replace(attention='flash')
  with pytest.raises(ValueError, match='bf16_matmul = False'):
    replace(attention='cudnn')
  cudnn = replace(attention='cudnn', bf16_matmul=True)
  with pytest.raises(ValueError, match="'cudnn' runs on gpu, not on cpu"):
    jax.eval_shape(decoder.init_fn(cudnn), jax.random.key(0))
  with sharding.use(mesh8, sharding.TRAIN_RULES):
    with pytest.raises(ValueError, match='runs on gpu, not on cpu'):
      kernels.check_platform(cudnn)
    with pytest.raises(ValueError, match='3 rows do not divide by 4'):
      _attend(_config('splash', 4, 2), _qkv(4, 2, rows=3), None)
    with pytest.raises(ValueError, match='3 query heads do not divide by 2'):
      _attend(_config('splash', 3, 1), _qkv(3, 1, rows=4), None)
  splash = replace(attention='splash')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  kernels.check_platform(cudnn)
  with pytest.raises(ValueError, match="'splash' runs on tpu, not on gpu"):
    kernels.check_platform(splash)


def test_a_checkpoint_does_not_fix_the_kernel():
  raw = hf_config.to_json(TINY, 'float32')
  assert hf_config.to_json(_config('xla', 4, 2), 'float32') == raw
  assert 'attention' in RUNTIME and 'attention' not in raw
  assert hf_config.from_json(raw, attention='xla').attention == 'xla'
