"""The RQ-VAE's state and one epoch of its training, as one jitted scan.

Letters: I items, B items a step, W width of the embedding, L levels, C codes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from gr2_jax import sharding
from gr2_jax.sid import codebook, rqvae
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import optimiser, state

# What an epoch averages, where the loss has it.
NUMBERS = ('mse', 'commitment', 'diversity', 'contrastive')


@struct.dataclass
class RqvaeState:
  """What an epoch changes.

  Attributes:
    train: parameters (codebooks included) and the optimiser's state.
    idle: int32 [L, C], batches since a code was used; 0 without dead_reset.
  """

  train: state.TrainState
  idle: jax.Array

  @property
  def books(self) -> jax.Array:
    """The codebooks, float32 [L, C, D]."""
    return self.train.params['books']

  def with_books(self, books: jax.Array) -> 'RqvaeState':
    """Returns the state with other codebooks."""
    params = {**self.train.params, 'books': books}
    return self.replace(train=self.train.replace(params=params))


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
  params = rqvae.create(key, rqvae.Autoencoder(config, width), config)
  return RqvaeState(
    state.TrainState(
      jnp.zeros((), jnp.int32), params, _optimiser(config, items).init(params)
    ),
    jnp.zeros((config.levels, config.codes), jnp.int32),
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
  """Starts the codebooks (`SidConfig.init`) on the latents of all items."""
  if config.init == 'random':
    return current.with_books(
      codebook.random_books(key, config.levels, config.codes, config.latent)
    )
  model = rqvae.Autoencoder(config, vectors.shape[1])
  z = rqvae.apply(model, current.train.params, vectors, 'encode')
  return current.with_books(
    codebook.residual_kmeans(
      key, z, config.levels, config.codes, config.kmeans_iterations
    )
  )


def _positives(
  key: jax.Array, partners: jax.Array, chosen: jax.Array
) -> jax.Array:
  """Draws one partner of each item [B]; -1 for items without any."""
  rows = partners[chosen]
  count = (rows >= 0).sum(-1)
  draw = jax.random.uniform(key, count.shape)
  place = jnp.minimum((draw * count).astype(jnp.int32), count - 1)
  drawn = jnp.take_along_axis(rows, jnp.maximum(place, 0)[:, None], axis=1)
  return jnp.where(count > 0, drawn[:, 0], -1)


def _move_books(
  current: RqvaeState, config: SidConfig, aux: dict, books: jax.Array
) -> RqvaeState:
  """Does to the codebooks what is not the optimiser's: EMA and resets.

  Args:
    current: the state after the optimiser's update.
    config: the numbers.
    aux: of the loss.
    books: the codebooks before the update.
  """
  idle = current.idle
  if config.ema:
    books = jax.vmap(codebook.ema_update, (0, 1, 1, None))(
      books, aux['residuals'], aux['codes'], config.decay
    )
  else:
    books = current.books
  if config.dead_reset:
    books, idle = codebook.reset_dead(
      books,
      idle,
      aux['codes'],
      aux['residuals'],
      aux['errors'],
      config.dead_reset,
    )
  return current.with_books(books).replace(idle=idle)


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
  partners: jax.Array | None = None,
) -> tuple[RqvaeState, dict[str, jax.Array]]:
  """Trains on every item once (the last batch is filled up from the first).

  Args:
    current: the state; its memory is reused.
    config: the numbers.
    mesh: each batch is split over its data and fsdp axes.
    vectors: float32 [I, W], standardised.
    key: of the order of the items.
    quantised: bool scalar; False trains the plain autoencoder.
    partners: int32 [I, M], positives of the contrastive term, -1 pads; None
      without it.

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
    train, pairs = current.train, None
    if partners is not None:
      draw = jax.random.fold_in(key, train.step)
      positives = _positives(draw, partners, chosen)
      pairs = (chosen, positives, vectors[jnp.maximum(positives, 0)])
    (loss, aux), grads = jax.value_and_grad(rqvae.loss, has_aux=True)(
      train.params, model, vectors[chosen], quantised, pairs
    )
    updates, opt_state = tx.update(grads, train.opt_state, train.params)
    params = jax.tree.map(jnp.add, train.params, updates)
    after = current.replace(
      train=state.TrainState(train.step + 1, params, opt_state)
    )
    moved = _move_books(after, config, aux, current.books)
    still = after.with_books(current.books)
    after = jax.tree.map(
      lambda one, other: jnp.where(quantised, one, other), moved, still
    )
    numbers = {k: aux[k] for k in NUMBERS if k in aux}
    counts = jax.nn.one_hot(aux['codes'], config.codes).sum(0)
    return after, {'loss': loss, **numbers, 'counts': counts}

  current, numbers = jax.lax.scan(step, current, order)
  counts = numbers.pop('counts').sum(0)
  means = {name: value.mean() for name, value in numbers.items()}
  return current, {**means, 'counts': counts}
