"""A linear model, its data and its loop, shared by the tests of this folder."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import files, sharding
from gr2_jax.train import loop, optimiser, state, step

STEPS = 7


class Killed(Exception):
  """Stands for SIGKILL."""


class Batches:
  """An endless iterator whose state is its place, as a dict or as bytes.

  `at(place)` is called before each batch.
  """

  def __init__(self, as_bytes=False, stop=None, end=None, rows=4, at=None):
    self.place = 0
    self.as_bytes = as_bytes
    self.stop = stop
    self.end = end
    self.rows = rows
    self.at = at

  def __next__(self):
    if self.place == self.stop:
      raise Killed
    if self.place == self.end:
      raise StopIteration
    if self.at:
      self.at(self.place)
    rng = np.random.default_rng(self.place)
    self.place += 1
    x = rng.normal(size=(self.rows, 3)).astype(np.float32)
    return {'x': x, 'y': x.sum(-1) + 1}

  def get_state(self):
    value = {'place': self.place}
    return json.dumps(value).encode() if self.as_bytes else value

  def set_state(self, value):
    if self.as_bytes:
      value = json.loads(value.decode())
    self.place = value['place']


def loss(params, batch):
  """Squares, with a mean and an extreme beside them."""
  error = batch['x'] @ params['kernel'] + params['bias'] - batch['y']
  square = jnp.square(error)
  count = jnp.float32(square.size)
  metrics = {
    'error': (jnp.abs(error).sum(), count),
    'error_max': (jnp.abs(error).max(), jnp.float32(1)),
  }
  return square.sum(), count, metrics


TX = optimiser.make(optimiser.OptimiserConfig(lr=0.1, total_steps=STEPS))
STEP = step.make_train_step(loss, TX)


def start(mesh):
  params = {'kernel': np.full(3, 0.3, np.float32), 'bias': np.zeros(1, 'f')}
  return state.create(sharding.replicate(mesh, params), TX, mesh)


def fit(mesh, directory, iterator, step_fn=STEP, **options):
  options = {'ckpt_every': 2, 'log_every': 3, **options}
  return loop.Loop(
    step_fn=step_fn,
    iterator=iterator,
    num_steps=STEPS,
    directory=directory,
    mesh=mesh,
    **options,
  ).fit(start(mesh))


def same_bits(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def records(directory):
  return list(files.read_jsonl(directory / 'metrics.jsonl'))


every = functools.partial(fit, log_every=1)
