"""What test_several.py runs as two processes: broadcast, batches, the loop."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from gr2_jax import processes, sharding
from gr2_jax.run import lock
from gr2_jax.train import loop, optimiser, state, step
from gr2_jax.train.retention import Policy
from launch import cluster

STEPS = 4


class Batches:
  """Endless batches of eight rows; the state is the place."""

  def __init__(self):
    self.place = 0

  def __next__(self):
    rng = np.random.default_rng(self.place)
    self.place += 1
    x = rng.normal(size=(8, 3)).astype(np.float32)
    return {'x': x, 'y': x.sum(-1) + 1}

  def get_state(self):
    return {'place': self.place}

  def set_state(self, value):
    self.place = value['place']


def _loss(params, batch):
  error = batch['x'] @ params['kernel'] + params['bias'] - batch['y']
  return jnp.square(error).sum(), jnp.float32(error.size), {}


def train(mesh, directory, steps=STEPS, evaluate=None):
  """Fits a line; returns its three slopes and the offset as a list."""
  tx = optimiser.make(optimiser.OptimiserConfig(lr=0.1, total_steps=STEPS))
  params = {'kernel': np.full(3, 0.3, np.float32), 'bias': np.zeros(1, 'f')}
  final = loop.Loop(
    step_fn=step.make_train_step(_loss, tx),
    iterator=Batches(),
    num_steps=steps,
    directory=directory,
    mesh=mesh,
    ckpt_every=2,
    log_every=1,
    # Decided by what only the first process sees for certain.
    stop=lambda: len((directory / 'metrics.jsonl').read_text()) > 10**6,
    evaluate=evaluate,
    policy=Policy(best='score'),
  ).fit(state.create(sharding.replicate(mesh, params), tx, mesh))
  found = sharding.fetch(mesh, final.params)
  return [*found['kernel'].tolist(), *found['bias'].tolist()]


def _refuse():
  raise ValueError('no such thing')


def main(argv):
  cluster.join()
  directory = pathlib.Path(argv[1])
  index = jax.process_index()
  found = {'processes': jax.process_count(), 'devices': jax.device_count()}
  found['told'] = processes.on_first(lambda: {'by': index, 'long': 'é' * 5000})
  with lock.hold(directory / 'locked'):
    held = json.loads((directory / 'locked' / lock.NAME).read_text())
    found['lock'], found['pid'] = held['pid'], os.getpid()
    processes.on_first(lambda: None)
  try:
    processes.on_first(_refuse)
  except (ValueError, RuntimeError) as error:
    found['refused'] = f'{type(error).__name__}: {error}'
  for name, sizes in {'data': {}, 'tensor': {'tensor': 2}}.items():
    mesh = sharding.make_mesh(**sizes)
    batch = np.arange(8.0)
    put = sharding.shard_batch(mesh, batch)
    parts = [shard.data.tolist() for shard in put.addressable_shards]
    found[name] = {
      'own': sharding.own_rows(mesh, 8).tolist(),
      'held': sorted({int(row) for part in parts for row in part}),
      'fetched': sharding.fetch(mesh, put).tolist(),
    }
  mesh = sharding.make_mesh()
  found['trained'] = train(mesh, directory / 'run')
  # Ended after two steps and started again: the same.
  train(mesh, directory / 'cut', 2)
  found['resumed'] = train(mesh, directory / 'cut')
  # Of two validated steps the earlier one is the better.
  worse = lambda state: {'score': -int(state.step)}
  found['best'] = train(mesh, directory / 'best', evaluate=worse)
  found['second'] = train(mesh, directory / 'second', 2)
  (directory / f'found_{index}.json').write_text(json.dumps(found))


if __name__ == '__main__':
  app.run(main)
