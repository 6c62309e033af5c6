"""The decoder: causality, packing, shared prompts, many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.lm import decoder
from gr2_jax.lm import tails as tails_lib
from gr2_jax.lm.config import LMConfig

TINY = LMConfig(
  vocab_size=64, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_dim=32
)
# The products are the same sums in other orders; float32 rounds at 6e-8 and
# logits are of size 1.
EXACT = dict(rtol=0, atol=2e-5)
# Operands are rounded to 8 bits of mantissa (4e-3), logits of size 1 are
# sums of 16 products; a wrong term changes them by about 1.
ROUGH = dict(rtol=0, atol=1e-1)


@functools.cache
def _params(config):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  params = decoder.init(config, mesh, sharding.TRAIN_RULES, jax.random.key(0))
  # Large enough for the layers to matter.
  params['embedding'] = params['embedding'] * 20
  return jax.device_get(params)


def _tokens(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 64, shape).astype(np.int32)


@functools.cache
def _apply(config, method=None):
  return jax.jit(
    functools.partial(decoder.Decoder(config).apply, method=method)
  )


def _grouped(config, prompts, valid, tails, stepwise):
  """Logits [Q, G, T, V] in one pass, or by prefill and extend."""
  variables = {'params': _params(config)}
  queries, group, length = tails.shape
  if not stepwise:
    hidden = _apply(config, 'hidden_shared')(variables, prompts, valid, tails)
    return _apply(config, 'unembed')(variables, hidden[:, :, 1:])
  _, kv = _apply(config, 'prefill')(variables, prompts, valid)
  lengths = valid.sum(-1)[:, None, None]
  extend = _apply(config, 'extend')
  cache = tails_lib.empty(config, queries, group, length + 1)
  parts = []
  for t in range(length):
    positions = np.broadcast_to(lengths + t, (queries, group, 1))
    tokens = tails[:, :, t : t + 1]
    index = jnp.int32(t)
    out, cache = extend(
      variables, tokens, positions, kv, valid, tail_kv=cache, index=index
    )
    parts.append(out)
  hidden = jnp.concatenate(parts, 2)
  return _apply(config, 'unembed')(variables, hidden)


@pytest.mark.parametrize('scan', [False, True])
@pytest.mark.parametrize('stepwise', [False, True])
def test_groups_equal_a_pass_over_the_concatenation(scan, stepwise):
  config = dataclasses.replace(TINY, scan=scan)
  prompts, tails = _tokens(2, 6), _tokens(2, 3, 4, seed=1)
  valid = np.arange(6)[None] < np.array([[6], [4]])
  got = _grouped(config, prompts, valid, tails, stepwise)
  full = _apply(config)
  for q, n in enumerate(valid.sum(-1)):
    rows = np.concatenate(
      [np.broadcast_to(prompts[q, None, :n], (3, n)), tails[q]], 1
    )
    want = full({'params': _params(config)}, rows)[:, n:]
    np.testing.assert_allclose(got[q], want, **EXACT)


@pytest.mark.parametrize('scan', [False, True])
def test_a_tree_behind_a_prompt_equals_its_paths(scan):
  """Each token follows a parent of its own, and sees its ancestors alone."""
  config = dataclasses.replace(TINY, scan=scan)
  variables = {'params': _params(config)}
  prompts, tails = _tokens(2, 6), _tokens(2, 3, 4, seed=1)
  valid = np.arange(6)[None] < np.array([[6], [4]])
  # A chain, a star, and two branches of two; -1 is the prompt's end.
  parents = np.array([[-1, 0, 1, 2], [-1, -1, -1, -1], [-1, 0, -1, 2]])
  seen = np.zeros((3, 4, 4), bool)
  for g, t in np.ndindex(3, 4):
    seen[g, t, t] = True
    if parents[g, t] >= 0:
      seen[g, t] |= seen[g, parents[g, t]]
  places = np.broadcast_to(seen.sum(-1) - 1, (2, 3, 4))
  mask = np.broadcast_to(seen, (2, 3, 4, 4))
  hidden = _apply(config, 'hidden_shared')(
    variables, prompts, valid, tails, places=places, mask=mask
  )
  got = _apply(config, 'unembed')(variables, hidden[:, :, 1:])
  rows, ends = np.zeros((24, 10), np.int32), []
  for row, (q, g, t) in zip(rows, np.ndindex(2, 3, 4), strict=True):
    path = [*prompts[q][valid[q]], *tails[q, g][seen[g, t]]]
    row[: len(path)] = path
    ends.append(len(path) - 1)
  want = np.asarray(_apply(config)(variables, rows))[np.arange(24), ends]
  np.testing.assert_allclose(got.reshape(24, -1), want, **EXACT)


@pytest.mark.parametrize('scan', [False, True])
def test_the_state_after_each_prompt(scan):
  config = dataclasses.replace(TINY, scan=scan)
  variables, prompts = {'params': _params(config)}, _tokens(3, 6)
  lengths = np.array([6, 4, 1])
  valid = np.arange(6)[None] < lengths[:, None]
  last, _ = _apply(config, 'prefill')(variables, prompts, valid)
  whole = _apply(config, 'hidden')(variables, prompts)
  assert last.shape == (3, 1, config.width)
  want = np.asarray(whole)[np.arange(3), lengths - 1]
  np.testing.assert_allclose(last[:, 0], want, **EXACT)
  tails = _tokens(3, 2, 4, seed=1)
  shared = _apply(config, 'hidden_shared')(variables, prompts, valid, tails)
  assert shared.shape == (3, 2, 5, config.width)
  for member in range(2):
    np.testing.assert_allclose(shared[:, member, 0], want, **EXACT)


def test_several_tokens_at_once_fill_the_cache_alike():
  variables, prompts = {'params': _params(TINY)}, _tokens(2, 6)
  valid, tails = np.ones((2, 6), bool), _tokens(2, 3, 4, seed=1)
  want = _apply(TINY, 'hidden_shared')(variables, prompts, valid, tails)
  _, kv = _apply(TINY, 'prefill')(variables, prompts, valid)
  cache, parts = tails_lib.empty(TINY, 2, 3, 5), []
  for begin, end in (0, 3), (3, 4):
    positions = np.broadcast_to(6 + np.arange(begin, end), (2, 3, end - begin))
    tokens = tails[:, :, begin:end]
    out, cache = _apply(TINY, 'extend')(
      variables,
      tokens,
      positions,
      kv,
      valid,
      tail_kv=cache,
      index=jnp.int32(begin),
    )
    parts.append(out)
  np.testing.assert_allclose(jnp.concatenate(parts, 2), want[:, :, 1:], **EXACT)


def test_later_tokens_do_not_change_earlier_logits():
  rows = np.repeat(_tokens(1, 8), 2, 0)
  rows[1, 5] = (rows[1, 5] + 1) % 64
  logits = _apply(TINY)({'params': _params(TINY)}, rows)
  np.testing.assert_array_equal(logits[0, :5], logits[1, :5])
  assert np.abs(logits[0, 5:] - logits[1, 5:]).max(-1).min() > 1e-3


def test_packed_rows_equal_their_parts():
  a, b = _tokens(1, 5), _tokens(1, 3, seed=1)
  row = np.concatenate([a, b], 1)
  segments = np.array([[1] * 5 + [2] * 3])
  positions = np.array([[*range(5), *range(3)]])
  run, variables = _apply(TINY), {'params': _params(TINY)}
  packed = run(variables, row, positions, segments)
  np.testing.assert_allclose(packed[:, :5], run(variables, a), **EXACT)
  np.testing.assert_allclose(packed[:, 5:], run(variables, b), **EXACT)


def test_rotary_positions_are_relative():
  run, variables = _apply(TINY), {'params': _params(TINY)}
  rows = _tokens(2, 108)
  near = run(variables, rows)
  # The same first eight tokens, far on; what follows them is not seen.
  far = run(variables, rows, (np.arange(108)[None] + 100) % 108)
  # Angles of 100 radians are rounded at 1e-5.
  np.testing.assert_allclose(near[:, :8], far[:, :8], rtol=0, atol=1e-3)


def test_positions_beyond_the_row_are_not_numbers():
  run, variables = _apply(TINY), {'params': _params(TINY)}
  logits = run(variables, _tokens(1, 4), np.array([[0, 1, 2, 4]]))
  assert np.isnan(logits[:, 3]).all()


@functools.partial(jax.jit, static_argnums=1)
def _grad(params, config):
  def loss(params):
    logits = decoder.Decoder(config).apply({'params': params}, _tokens(2, 8))
    return jnp.square(logits).mean()

  return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize('scan, remat', [(1, 0), (0, 1), (1, 1)])
def test_scan_and_remat_compute_the_same_model(scan, remat):
  config = dataclasses.replace(TINY, scan=bool(scan), remat=bool(remat))
  params = dict(_params(config))
  if scan:
    stacked = params.pop('layers')
    for i in range(config.layers):
      params[f'layers_{i}'] = jax.tree.map(lambda x, i=i: x[i], stacked)
  value, grads = _grad(_params(config), config)
  want, want_grads = _grad(params, TINY)
  np.testing.assert_allclose(value, want, rtol=1e-5)
  np.testing.assert_allclose(
    grads['embedding'], want_grads['embedding'], rtol=0, atol=1e-5
  )


@pytest.mark.parametrize('switch', ['scan', 'tie_embeddings', 'qk_norm'])
def test_the_number_of_parameters(switch):
  value = not getattr(TINY, switch)
  config = dataclasses.replace(TINY, **{switch: value})
  shapes = jax.eval_shape(decoder.init_fn(config), jax.random.key(0))
  assert sum(x.size for x in jax.tree.leaves(shapes)) == config.num_params
  assert ('output' in shapes) == (not config.tie_embeddings)


def test_an_output_table_of_its_own():
  config = dataclasses.replace(TINY, tie_embeddings=False)
  params = dict(_params(TINY), output=-_params(TINY)['embedding'])
  rows = _tokens(1, 8)
  got = _apply(config)({'params': params}, rows)
  want = _apply(TINY)({'params': _params(TINY)}, rows)
  np.testing.assert_array_equal(got, -want)


@pytest.mark.parametrize('stepwise', [False, True])
def test_every_product_runs_with_bfloat16_operands(stepwise):
  """On CPU some products compile and fail when run: so run all of them."""
  config = dataclasses.replace(TINY, bf16_matmul=True)
  assert jax.tree.all(
    jax.tree.map(np.array_equal, _params(config), _params(TINY))
  )
  prompts, tails = _tokens(2, 6), _tokens(2, 3, 4, seed=1)
  valid = np.arange(6)[None] < np.array([[6], [4]])
  args = prompts, valid, tails, stepwise
  np.testing.assert_allclose(
    _grouped(config, *args), _grouped(TINY, *args), **ROUGH
  )


@pytest.mark.parametrize('bf16', [False, True])
def test_gradients_through_a_shared_prompt(bf16):
  """Against those of a pass over copies of the prompt."""
  config = dataclasses.replace(TINY, bf16_matmul=bf16, layers=1)
  prompts, tails = _tokens(2, 6), _tokens(2, 3, 4, seed=1)
  valid = np.ones((2, 6), bool)
  model = decoder.Decoder(config)

  def shared(params):
    variables = {'params': params}
    hidden = model.apply(
      variables, prompts, valid, tails, method='hidden_shared'
    )
    logits = model.apply(variables, hidden[:, :, 1:], method='unembed')
    return jnp.square(logits).mean()

  def copied(params):
    rows = np.concatenate(
      [np.broadcast_to(prompts[:, None], (2, 3, 6)), tails], -1
    )
    logits = model.apply({'params': params}, rows.reshape(6, 10))
    return jnp.square(logits[:, 6:]).mean()

  got = jax.jit(jax.grad(shared))(_params(config))
  want = jax.jit(jax.grad(copied))(_params(config))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    scale = np.abs(b).max()
    np.testing.assert_allclose(
      a / scale, b / scale, **(ROUGH if bf16 else EXACT)
    )


@pytest.mark.parametrize('bf16', [False, True])
def test_eight_devices_score_like_one(mesh1, mesh8, bf16):
  config = dataclasses.replace(TINY, bf16_matmul=bf16)
  rows = _tokens(4, 8)
  out = {}
  for mesh in (mesh1, mesh8):
    for rules in (sharding.TRAIN_RULES, sharding.DECODE_RULES):
      _, shardings = sharding.param_shardings(
        decoder.init_fn(config), mesh, rules, jax.random.key(0)
      )
      params = sharding.reshard(_params(config), shardings)
      with sharding.use(mesh, rules):
        logits = _apply(config)(
          {'params': params}, sharding.shard_batch(mesh, rows)
        )
      out[mesh.size, rules] = logits
  assert logits.sharding.spec[0] == sharding.BATCH
  want = out.pop((1, sharding.TRAIN_RULES))
  for got in out.values():
    np.testing.assert_allclose(got, want, **(ROUGH if bf16 else EXACT))


def test_bad_sizes_are_named():
  for name, size in (('layers', 2**12 + 1), ('head_dim', 10**30)):
    with pytest.raises(ValueError, match=f'{name} is {size}: give a size up'):
      dataclasses.replace(TINY, **{name: size})
  with pytest.raises(ValueError, match='heads = 3 does not divide'):
    dataclasses.replace(TINY, heads=3)
  with pytest.raises(ValueError, match='head_dim = 7 is odd'):
    dataclasses.replace(TINY, head_dim=7)
  with pytest.raises(ValueError, match='layers is 0'):
    dataclasses.replace(TINY, layers=0)


def test_narrow_kernels_compute_the_same_bits():
  config = dataclasses.replace(TINY, bf16_matmul=True)
  params, tokens = _params(config), _tokens(2, 6)
  narrow, low = decoder.narrow(config, params)
  assert low['layers_0']['mlp']['up']['kernel'].dtype == jnp.bfloat16
  assert low['embedding'].dtype == jnp.float32
  np.testing.assert_array_equal(
    _apply(narrow)({'params': low}, tokens),
    _apply(config)({'params': params}, tokens),
  )
  assert decoder.narrow(TINY, params) == (TINY, params)
