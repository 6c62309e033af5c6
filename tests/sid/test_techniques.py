"""Every switch of the tokenizer trains, and does what it is for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.sid import codebook, quantised, rqvae, train
from gr2_jax.sid.config import SidConfig

CONFIG = SidConfig(
  levels=3,
  codes=8,
  bf16_matmul=False,
  split_below=0.0,
  hidden=(16,),
  latent=8,
  epochs=6,
  batch_size=32,
  lr=1e-2,
  warmup_epochs=1,
  check_every=6,
)


def _fit(vectors, mesh, tmp_path, partners=None, **changes):
  config = dataclasses.replace(CONFIG, **changes)
  trained = train.fit(vectors, config, mesh, tmp_path, 0, partners=partners)
  return trained, quantised.infer(trained, config, vectors, mesh)


def test_random_start_collapses_where_kmeans_does_not(vectors, mesh1, tmp_path):
  used = {}
  for init in ('random', 'kmeans++'):
    _, found = _fit(vectors, mesh1, tmp_path / init, init=init)
    counts = codebook.usage(found.codes, 8)
    used[init] = np.mean(codebook.perplexity(counts))
  assert used['random'] < 0.7 * used['kmeans++']


def test_without_ema_gradients_move_the_books(vectors, mesh1, tmp_path):
  trained, found = _fit(vectors, mesh1, tmp_path, ema=False)
  assert found.mse < 0.5
  grads = jax.grad(
    lambda params: rqvae.loss(
      params,
      rqvae.Autoencoder(dataclasses.replace(CONFIG, ema=False), 12),
      jnp.asarray(vectors),
      jnp.array(True),
    )[0]
  )(trained.train.params)
  moved = np.abs(np.asarray(grads['books'])).sum(-1) > 0
  counts = codebook.usage(found.codes, 8)
  np.testing.assert_array_equal(moved, counts > 0)


def test_with_ema_no_gradient_reaches_the_books(vectors):
  model = rqvae.Autoencoder(dataclasses.replace(CONFIG, diversity=1.0), 12)
  params = rqvae.create(jax.random.key(0), model, CONFIG)
  params['books'] = jax.random.normal(jax.random.key(1), (3, 8, 8))
  grads = jax.grad(
    lambda p: rqvae.loss(p, model, jnp.asarray(vectors), jnp.array(True))[0]
  )(params)
  np.testing.assert_array_equal(grads['books'], 0.0)
  assert np.abs(grads['encoder']['dense_0']['kernel']).sum() > 0


def test_dead_codes_restart_by_hand():
  books = jnp.zeros((1, 4, 1))
  idle = jnp.array([[0, 1, 1, 0]])
  codes = jnp.array([[0], [0]])
  residuals = jnp.array([[[7.0]], [[9.0]]])
  errors = jnp.array([1.0, 2.0])
  books, idle = codebook.reset_dead(
    books, idle, codes, residuals=residuals, errors=errors, patience=2
  )
  # Codes 1 and 2 reach two batches; the worst item comes first.
  np.testing.assert_array_equal(books[0, :, 0], [0, 9, 7, 0])
  np.testing.assert_array_equal(idle, [[0, 0, 0, 1]])


def test_resets_revive_a_collapsed_codebook(vectors, mesh1, tmp_path):
  dead = {}
  for patience in (0, 3):
    _, found = _fit(
      vectors,
      mesh1,
      tmp_path / str(patience),
      init='random',
      dead_reset=patience,
      epochs=20,
    )
    dead[patience] = sum(codebook.dead_codes(codebook.usage(found.codes, 8)))
  assert dead[3] < dead[0]


def test_rare_codes_move_next_to_crowded_ones_by_hand():
  books = jnp.array([[[1.0], [5.0], [6.0], [7.0]]])
  use = jnp.array([[1.0, 1.0, 0.4, 0.2]])
  codes = jnp.array([[0], [0], [0], [1]])
  residuals = jnp.array([[[3.0]], [[2.0]], [[1.0]], [[5.0]]])
  books, use = codebook.split_rare(
    books, use, codes, residuals=residuals, below=0.25, rate=0.5
  )
  # Shares times 4 are 3, 1, 0, 0: uses 2, 1, 0.2, 0.1 before the last two move
  # a tenth of the way from code 0 to the first and to the second item.
  np.testing.assert_allclose(books[0, :, 0], [1, 5, 1.2, 1.1], rtol=1e-6)
  np.testing.assert_allclose(use, [[2, 1, 1, 1]], rtol=1e-6)


def test_splits_even_out_a_catalogue_with_a_crowd(mesh1, tmp_path):
  rng = np.random.default_rng(0)
  topics = rng.normal(size=(40, 12))
  # Half of the items share a topic, the others have one of few each.
  topic = np.where(rng.random(800) < 0.5, 0, rng.integers(40, size=800))
  x = topics[topic] + 0.1 * rng.normal(size=(800, 12))
  least = {}
  for below in (0.0, 0.25):
    _, found = _fit(
      x.astype(np.float32),
      mesh1,
      tmp_path / str(below),
      split_below=below,
      codes=16,
      epochs=30,
      batch_size=64,
    )
    use = codebook.usage(found.codes, 16)
    least[below] = min(codebook.perplexity(use)) / 16
  # One code takes half of the items of the first level: at most
  # exp(0.5 ln 2 + 0.5 ln 30) / 16 = 0.48 without splitting.
  assert least[0.0] < 0.5
  assert least[0.25] > 0.7


def test_diversity_evens_out_the_use_of_codes(vectors, mesh1, tmp_path):
  used = {}
  for weight in (0.0, 1.0):
    _, found = _fit(
      vectors, mesh1, tmp_path / str(weight), diversity=weight, epochs=12
    )
    used[weight] = np.mean(codebook.perplexity(codebook.usage(found.codes, 8)))
  assert used[1.0] > used[0.0]


def test_contrast_brings_partners_together(vectors, mesh1, tmp_path):
  # Partners of other topics: text alone would keep them apart.
  partners = np.full((90, 2), -1, np.int32)
  partners[:45, 0] = np.arange(45, 90)
  partners[45:, 0] = np.arange(45)
  near = {}
  for weight in (0.0, 1.0):
    given = partners if weight else None
    trained, _ = _fit(
      vectors, mesh1, tmp_path / str(weight), given, contrastive=weight
    )
    model = rqvae.Autoencoder(CONFIG, 12)
    z = rqvae.apply(model, trained.train.params, jnp.asarray(vectors), 'encode')
    z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
    near[weight] = float((z[:45] * z[45:]).sum(1).mean())
  assert near[1.0] > near[0.0] + 0.3


def test_contrast_needs_partners_and_nothing_else_does(
  vectors, mesh1, tmp_path
):
  with pytest.raises(ValueError, match='partners missing'):
    _fit(vectors, mesh1, tmp_path, contrastive=0.5)
  with pytest.raises(ValueError, match='partners given'):
    _fit(vectors, mesh1, tmp_path, np.zeros((90, 1), np.int32))


def test_residual_kmeans_reconstructs(vectors, mesh1):
  found = quantised.kmeans(vectors, CONFIG, mesh1, seed=0)
  assert found.codes.shape == (90, 3)
  total = sum(found.books[k][found.codes[:, k]] for k in range(3))
  # float32 sums in another order.
  assert found.mse == pytest.approx(((vectors - total) ** 2).mean(), rel=1e-4)
  assert found.mse < 0.3


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('init', 'zeros'),
    ('quantiser', 'vq'),
    ('last_level', 'first'),
    ('diversity', -1.0),
    ('contrastive_temperature', 0.0),
    ('dead_reset', -1),
  ],
)
def test_wrong_settings_are_named(name, value):
  with pytest.raises(ValueError, match=f'sid.{name}'):
    dataclasses.replace(CONFIG, **{name: value})
