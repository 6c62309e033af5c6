"""Inference in batches over the mesh equals one pass, also from disk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import codebook, quantised, rqvae, steps
from gr2_jax.sid import vectors as vectors_lib
from gr2_jax.sid.config import SidConfig

CONFIG = SidConfig(
  levels=3,
  codes=8,
  hidden=(16,),
  latent=8,
  last_level='sinkhorn',
  bf16_matmul=False,
  split_below=0.0,
)


@pytest.fixture
def state(vectors, mesh1):
  start = steps.create(CONFIG, *vectors.shape, mesh1, seed=0)
  return steps.start_books(start, CONFIG, vectors, jax.random.key(0))


@pytest.mark.parametrize('rows', [1, 16, 90, 200])
@pytest.mark.parametrize('devices', [1, 8])
def test_batches_equal_one_pass(
  vectors, state, devices, rows, request, monkeypatch, tmp_path
):
  monkeypatch.setattr(vectors_lib, 'ROWS', rows)
  monkeypatch.setattr(quantised, '_TILE', 4)
  quantised._tiled.cache_clear()
  mesh = request.getfixturevalue(f'mesh{devices}')
  np.save(tmp_path / 'vectors.npy', vectors)
  data = vectors_lib.scaled(vectors_lib.read(tmp_path / 'vectors.npy'))
  moved = jax.tree.map(np.asarray, state)
  found = quantised.infer(moved, CONFIG, data, mesh)
  np.testing.assert_array_equal(
    quantised.codes(moved, CONFIG, data, mesh), found.codes
  )
  params = moved.train.params
  model = rqvae.Autoencoder(CONFIG, 12)
  z = rqvae.apply(model, params, jnp.asarray(data[:]), 'encode')
  codes, chosen, residuals = codebook.quantise(params['books'], z)
  decoded = rqvae.apply(model, params, chosen.sum(1), 'decode')
  np.testing.assert_array_equal(found.codes, codes)
  # Matrix products of other shapes round otherwise.
  np.testing.assert_allclose(found.last, residuals[:, -1], atol=1e-5)
  assert found.mse == pytest.approx(float(((data[:] - decoded) ** 2).mean()))
  np.testing.assert_array_equal(
    quantised.nearest(params['books'], np.asarray(z), mesh), codes
  )


def test_residuals_are_kept_only_where_they_are_needed(vectors, mesh1, state):
  config = dataclasses.replace(CONFIG, last_level='random')
  assert quantised.infer(state, config, vectors, mesh1).last is None


def test_a_sample_starts_the_codebooks_of_a_large_catalogue(vectors):
  config = dataclasses.replace(CONFIG, kmeans_items=20)
  some = quantised.sample(vectors, config, 0)
  assert some.shape == (20, 12)
  rows = {tuple(row) for row in vectors.tolist()}
  assert len({tuple(row) for row in some.tolist()} & rows) == 20
  np.testing.assert_array_equal(quantised.sample(vectors, CONFIG, 0), vectors)
