"""Trains the RQ-VAE: one jitted scan an epoch, sharded over the mesh.

Letters: I items, B items a step, W width of the embedding, L levels, C codes.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from gr2_jax import progress, sharding
from gr2_jax.sid import assign, codebook, rqvae
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import checkpoint, metrics, optimiser, state


@struct.dataclass
class RqvaeState:
  """What an epoch changes.

  Attributes:
    train: parameters of the autoencoder and the optimiser's state.
    books: float32 [L, C, D].
  """

  train: state.TrainState
  books: jax.Array


def _steps(config: SidConfig, items: int) -> int:
  return -(-items // config.batch_size)


def _optimiser(config: SidConfig, items: int) -> optimiser.Optimiser:
  return optimiser.make(
    optimiser.OptimiserConfig(
      lr=config.lr,
      total_steps=_steps(config, items) * config.epochs,
      weight_decay=config.weight_decay,
      b2=0.999,
    )
  )


@functools.partial(jax.jit, static_argnames=('config', 'items', 'width'))
def _create(key, config, items, width):
  model = rqvae.Autoencoder(config, width)
  params = model.init(key, jnp.zeros((1, width)))['params']
  return RqvaeState(
    state.TrainState(
      jnp.zeros((), jnp.int32), params, _optimiser(config, items).init(params)
    ),
    jnp.zeros((config.levels, config.codes, config.latent)),
  )


def create(
  config: SidConfig, items: int, width: int, mesh: Mesh, seed: int
) -> RqvaeState:
  """Starts a run; the codebooks are zero until `start_books`.

  Args:
    config: the numbers.
    items: I.
    width: W.
    mesh: the state lies whole on each of its devices: it is small.
    seed: of the parameters.

  Returns:
    The state.
  """
  key = jax.random.key(seed)
  return sharding.replicate(mesh, _create(key, config, items, width))


@functools.partial(jax.jit, static_argnames='config')
def start_books(
  current: RqvaeState, config: SidConfig, vectors: jax.Array, key: jax.Array
) -> RqvaeState:
  """Starts the codebooks by k-means++ on the latent vectors of all items."""
  model = rqvae.Autoencoder(config, vectors.shape[1])
  z = model.apply({'params': current.train.params}, vectors, method='encode')
  books = codebook.residual_kmeans(
    key, z, config.levels, config.codes, config.kmeans_iterations
  )
  return current.replace(books=books)


@functools.partial(
  jax.jit, static_argnames=('config', 'mesh'), donate_argnames='current'
)
def epoch(
  current: RqvaeState,
  config: SidConfig,
  mesh: Mesh,
  vectors: jax.Array,
  key: jax.Array,
  quantised: jax.Array,
) -> tuple[RqvaeState, dict[str, jax.Array]]:
  """Trains on every item once (the last batch is filled up from the first).

  Args:
    current: the state; its memory is reused.
    config: the numbers.
    mesh: each batch is split over its data and fsdp axes.
    vectors: float32 [I, W], standardised.
    key: of the order of the items.
    quantised: bool scalar; False trains the plain autoencoder.

  Returns:
    (state, means over the epoch and `counts` [L, C] of the codes' use).
  """
  items, width = vectors.shape
  model = rqvae.Autoencoder(config, width)
  tx = _optimiser(config, items)
  order = jax.random.permutation(key, items)
  order = jnp.resize(order, (_steps(config, items), config.batch_size))

  def step(current, chosen):
    chosen = jax.lax.with_sharding_constraint(
      chosen, sharding.batch_sharding(mesh)
    )
    train = current.train
    (loss, aux), grads = jax.value_and_grad(rqvae.loss, 1, has_aux=True)(
      model, train.params, current.books, vectors[chosen], quantised
    )
    updates, opt_state = tx.update(grads, train.opt_state, train.params)
    params = jax.tree.map(jnp.add, train.params, updates)
    moved = jax.vmap(codebook.ema_update, (0, 1, 1, None))(
      current.books, aux['residuals'], aux['codes'], config.decay
    )
    books = jnp.where(quantised, moved, current.books)
    counts = jax.nn.one_hot(aux['codes'], config.codes).sum(0)
    numbers = {
      'loss': loss,
      'mse': aux['mse'],
      'commitment': aux['commitment'],
      'counts': counts,
    }
    return RqvaeState(
      state.TrainState(train.step + 1, params, opt_state), books
    ), numbers

  current, numbers = jax.lax.scan(step, current, order)
  counts = numbers.pop('counts').sum(0)
  means = {name: value.mean() for name, value in numbers.items()}
  return current, {**means, 'counts': counts}


@functools.partial(jax.jit, static_argnames='config')
def _infer(current, config, vectors):
  model = rqvae.Autoencoder(config, vectors.shape[1])
  _, aux = rqvae.loss(
    model, current.train.params, current.books, vectors, jnp.array(True)
  )
  return aux['codes'], aux['mse']


def infer(
  current: RqvaeState, config: SidConfig, vectors: jax.Array
) -> tuple[np.ndarray, float]:
  """Quantises all items.

  Args:
    current: a trained state.
    config: the numbers.
    vectors: float32 [I, W], standardised.

  Returns:
    (nearest codes int32 [I, L], mean squared error per component).
  """
  codes, mse = _infer(current, config, vectors)
  return np.asarray(codes), float(mse)


def fit(
  vectors: np.ndarray,
  config: SidConfig,
  mesh: Mesh,
  directory: pathlib.Path,
  seed: int,
) -> RqvaeState:
  """Trains to the end, or on from the last checkpoint, with the same result.

  Args:
    vectors: float32 [I, W], standardised.
    config: the numbers.
    mesh: the mesh.
    directory: gets `metrics.jsonl` (a line an epoch) and `checkpoints/`.
    seed: of parameters, codebooks and orders.

  Returns:
    The trained state.

  Raises:
    ValueError: the batch size does not divide by the devices.
  """
  _check_batch(config, mesh)
  current = create(config, *vectors.shape, mesh, seed)
  vectors = sharding.replicate(mesh, vectors)
  writer = metrics.MetricsWriter(directory / 'metrics.jsonl')
  key = jax.random.fold_in(jax.random.key(seed), 1)
  with (
    checkpoint.Checkpointer(directory / 'checkpoints', keep=1) as saved,
    jax.set_mesh(mesh),
  ):
    first = saved.latest or 0
    if first:
      current = saved.restore(current)[0]
    writer.truncate(first)
    bar = progress.bar(
      total=config.epochs, desc='rq-vae', unit='epoch', initial=first
    )
    for number in range(first, config.epochs):
      quantised = number >= config.warmup_epochs
      if number == config.warmup_epochs:
        current = start_books(current, config, vectors, key)
      order_key = jax.random.fold_in(key, number)
      current, numbers = epoch(
        current, config, mesh, vectors, order_key, jnp.array(quantised)
      )
      record = _record(numbers, quantised)
      done = number + 1
      check = done % config.check_every == 0 or done == config.epochs
      if check and quantised:
        record['uniqueness'] = assign.uniqueness(
          infer(current, config, vectors)[0]
        )
      writer.write(done, record)
      if check:
        saved.save(done, current)
      bar.update()
    bar.close()
  return current


def _check_batch(config: SidConfig, mesh: Mesh) -> None:
  parts = sharding.batch_parts(mesh)
  if config.batch_size % parts:
    raise ValueError(
      f'sid.batch_size = {config.batch_size} does not divide by the {parts} '
      'devices of the data and fsdp axes: change it or config.mesh.'
    )


def _record(numbers: dict[str, Any], quantised: bool) -> dict[str, Any]:
  """Turns an epoch's numbers into a line of metrics."""
  names = ('loss', 'mse', 'commitment') if quantised else ('loss', 'mse')
  record = {name: float(numbers[name]) for name in names}
  if quantised:
    for level, value in enumerate(codebook.perplexity(numbers['counts'])):
      record[f'perplexity_{level}'] = value
  return record
