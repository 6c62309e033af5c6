"""The RQ-VAE's state and a block of its training, as one jitted scan.

Letters: I items, S steps a block, B items a step, W width of the embedding,
L levels, C codes.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from gr2_jax import sharding
from gr2_jax.sid import batches, codebook, rqvae
from gr2_jax.sid.config import SidConfig
from gr2_jax.train import optimiser, state
from gr2_jax.train import step as step_lib

# What is averaged over an epoch, where the loss has it.
NUMBERS = ('mse', 'commitment', 'diversity', 'contrastive')


@struct.dataclass
class RqvaeState:
  """What training changes.

  Attributes:
    train: parameters (codebooks included) and the optimiser's state.
    idle: int32 [L, C], batches since a code was used; 0 without dead_reset.
    use: float32 [L, C], running share of the items over the even share 1 / C;
      1 without split_below.
  """

  train: state.TrainState
  idle: jax.Array
  use: jax.Array

  @property
  def books(self) -> jax.Array:
    """The codebooks, float32 [L, C, D]."""
    return self.train.params['books']

  def with_books(self, books: jax.Array) -> 'RqvaeState':
    """Returns the state with other codebooks."""
    params = {**self.train.params, 'books': books}
    return self.replace(train=self.train.replace(params=params))


def _optimiser(config: SidConfig, items: int) -> optimiser.Optimiser:
  plan = batches.Plan.make(config, items)
  return optimiser.make(
    optimiser.OptimiserConfig(
      lr=config.lr,
      total_steps=plan.blocks * plan.steps * config.epochs,
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
    jnp.ones((config.levels, config.codes), jnp.float32),
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
  """Starts the codebooks (`SidConfig.init`) on the latents of some items.

  Args:
    current: a state that was trained without quantisation, or not at all.
    config: the numbers.
    vectors: float32 [n, W], scaled.
    key: of the start.

  Returns:
    The state with codebooks.
  """
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


def _move_books(
  current: RqvaeState,
  config: SidConfig,
  items: int,
  aux: dict,
  books: jax.Array,
) -> RqvaeState:
  """Does to the codebooks what is not the optimiser's: EMA and resets.

  Args:
    current: the state after the optimiser's update.
    config: the numbers.
    items: I, which gives the length of an epoch.
    aux: of the loss.
    books: the codebooks before the update.
  """
  idle, use = current.idle, current.use
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
      residuals=aux['residuals'],
      errors=aux['errors'],
      patience=config.dead_reset,
    )
  if config.split_below:
    plan = batches.Plan.make(config, items)
    epoch = plan.blocks * plan.steps
    fresh, use = codebook.split_rare(
      books,
      use,
      aux['codes'],
      residuals=aux['residuals'],
      below=config.split_below,
      rate=1 / epoch,
    )
    # What moved last still settles before the end.
    last = config.epochs - (config.epochs - config.warmup_epochs) // 4
    books = jnp.where(current.train.step < last * epoch, fresh, books)
  return current.with_books(books).replace(idle=idle, use=use)


@functools.partial(
  jax.jit, static_argnames=('config', 'items'), donate_argnames='current'
)
def block(
  current: RqvaeState,
  config: SidConfig,
  items: int,
  data: dict[str, jax.Array],
  quantised: jax.Array,
) -> tuple[RqvaeState, dict[str, jax.Array]]:
  """Trains on one block, a step after the other.

  Args:
    current: the state; its memory is reused.
    config: the numbers.
    items: I, which gives the length of the run.
    data: of `batches.Blocks`, split over the devices.
    quantised: bool scalar; False trains the plain autoencoder.

  Returns:
    (state, means over the block and `counts` [L, C] of the codes' use).
  """
  model = rqvae.Autoencoder(config, data['vectors'].shape[-1])
  tx = _optimiser(config, items)

  def step(current, part):
    train, pairs = current.train, None
    if config.contrastive:
      pairs = (part['items'], part['positives'], part['partners'])
    (loss, aux), grads = jax.value_and_grad(rqvae.loss, has_aux=True)(
      train.params, model, part['vectors'], quantised, pairs
    )
    updates, opt_state = tx.update(grads, train.opt_state, train.params)
    params = jax.tree.map(jnp.add, train.params, updates)
    after = current.replace(
      train=state.TrainState(train.step + 1, params, opt_state)
    )
    moved = _move_books(after, config, items, aux, current.books)
    still = after.with_books(current.books)
    after = jax.tree.map(
      lambda one, other: jnp.where(quantised, one, other), moved, still
    )
    numbers = {k: aux[k] for k in NUMBERS if k in aux}
    counts = jax.nn.one_hot(aux['codes'], config.codes).sum(0)
    return after, {'loss': loss, **numbers, 'counts': counts}

  steps = batches.Plan.make(config, items).steps
  parts = step_lib.split(data, steps)
  current, numbers = jax.lax.scan(step, current, parts)
  counts = numbers.pop('counts').sum(0)
  means = {name: value.mean() for name, value in numbers.items()}
  return current, {**means, 'counts': counts}
