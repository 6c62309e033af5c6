"""The SASRec baseline: trained on full cross-entropy, and asked for lists.

model = sasrec.train(dataset, splits, cfg, mesh, directory, seed)
items, scores = sasrec.top_k(model, histories, 10)
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import bounds, files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import pipeline, seeded
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import metrics, sasrec_data, sasrec_lists
from gr2_jax.rank import sasrec_model as network
from gr2_jax.train import checkpoint, loop, optimiser, state, step, writers
from gr2_jax.train.retention import Policy

Model = sasrec_lists.Model
top_k = sasrec_lists.top_k
find_ranks = sasrec_lists.find_ranks
scores = sasrec_lists.scores

_METRIC = 'valid_ndcg@10'


@dataclasses.dataclass(frozen=True)
class SASRecConfig:
  """Network and training; sizes as the original where it has them, else ours.

  Attributes:
    width: D, the residual stream.
    layers: number of blocks.
    heads: N, of attention.
    mlp_dim: F, width of the feed-forward.
    max_length: items of a history that count.
    dropout: share of activations dropped in training.
    lr: learning rate of AdamW, constant after `warmup_steps`.
    warmup_steps: updates over which the rate rises.
    weight_decay: decoupled, on all but norms and biases.
    batch_size: rows an update.
    length: places a row; several histories share a row.
    max_epochs: passes over the training part, at most.
    every: passes between two validations.
    patience: validations without a better NDCG@10 after which training ends.
    valid_users: how many validation targets are used, drawn by the seed.
  """

  width: int = 64
  layers: int = 2
  heads: int = 2
  mlp_dim: int = 256
  max_length: int = 50
  dropout: float = 0.5
  lr: float = 3e-3
  warmup_steps: int = 100
  weight_decay: float = 0.0
  batch_size: int = 32
  length: int = 64
  max_epochs: int = 60
  every: int = 2
  patience: int = 3
  valid_users: int = 5000

  def __post_init__(self):
    sizes = ('width', 'layers', 'heads', 'mlp_dim', 'max_length', 'length')
    times = ('batch_size', 'max_epochs', 'every', 'patience', 'valid_users')
    bounds.at_least(self, 1, *sizes, *times)
    bounds.at_least(self, 0, 'lr', 'warmup_steps', 'weight_decay')
    bounds.share(self, 'dropout', whole=False)
    if self.width % self.heads:
      raise ValueError(
        f'width = {self.width} does not divide by heads = {self.heads}: make '
        'it a multiple.'
      )

  def network(self, num_items: int) -> network.NetworkConfig:
    """Returns the network's shape for a catalogue."""
    fields = {f.name for f in dataclasses.fields(network.NetworkConfig)}
    own = dataclasses.asdict(self)
    return network.NetworkConfig(
      num_items=num_items, **{k: own[k] for k in own if k in fields}
    )

  @property
  def optimiser(self) -> optimiser.OptimiserConfig:
    """The optimiser's numbers."""
    return optimiser.OptimiserConfig(
      lr=self.lr,
      schedule='constant',
      warmup_steps=self.warmup_steps,
      weight_decay=self.weight_decay,
    )


def train(
  dataset: dataset_lib.Dataset,
  splits: splits_lib.Splits,
  cfg: SASRecConfig,
  mesh: jax.sharding.Mesh,
  directory: pathlib.Path,
  *,
  seed: int,
  policy: Policy | None = None,
  tracking: writers.Tracking | None = None,
) -> Model:
  """Trains on what precedes every held-out item, until validation stops.

  Killed and called again it continues from its last checkpoint, with the same
  result; called on a finished directory it reads the model.

  Args:
    dataset: the sequences.
    splits: where each user's training part ends; validation targets.
    cfg: network and training.
    mesh: the mesh.
    directory: gets `checkpoints/`, `best/`, `metrics.jsonl`, `timing.jsonl`.
    seed: of initialisation, data order, dropout and validation sample.
    policy: what the checkpoints must agree with.
    tracking: see `loop.Loop`.

  Returns:
    The model with the best validation NDCG@10.

  Raises:
    ValueError: no validation target, or no history of two items to learn from.
  """
  directory = pathlib.Path(directory)
  shape = cfg.network(dataset.num_items)
  source = sasrec_data.Histories(dataset, splits, cfg.max_length)
  _check_size(dataset, len(source), len(splits.examples['valid'][0]))
  tx, step_fn = _training(shape, cfg.optimiser)
  params = _init(shape, mesh, seed)
  epoch = math.ceil(source.places / (cfg.batch_size * cfg.length))
  with checkpoint.Checkpointer(directory / 'best', Policy(keep=1)) as best:
    loop.Loop(
      step_fn=step_fn,
      iterator=_batches(source, cfg, seed),
      num_steps=epoch * cfg.max_epochs,
      directory=directory,
      mesh=mesh,
      ckpt_every=epoch * cfg.every,
      log_every=epoch,
      desc='sasrec',
      evaluate=_validation(
        dataset, splits, cfg, shape, mesh, best=best, seed=seed
      ),
      stop=lambda: _stopped(directory, cfg.patience),
      policy=policy,
      work=lambda batch: {'items': (batch['segments'] > 0).sum()},
      tracking=tracking,
    ).fit(state.create(params, tx, mesh))
    params, _, _ = best.restore(params)
  return Model(shape, params, mesh)


def _check_size(
  dataset: dataset_lib.Dataset, histories: int, targets: int
) -> None:
  if not histories or not targets:
    raise ValueError(
      f'SASRec has {histories} training histories and {targets} validation '
      f'targets in {dataset.name!r}; it needs both. Hold out fewer positions '
      '(data.split), but at least one for validation.'
    )


def load(
  num_items: int,
  cfg: SASRecConfig,
  mesh: jax.sharding.Mesh,
  directory: pathlib.Path,
) -> Model:
  """Reads the model that `train` left in a directory.

  Args:
    num_items: I.
    cfg: what it was trained with.
    mesh: the mesh.
    directory: of the training.

  Returns:
    The model.

  Raises:
    FileNotFoundError: there is none.
  """
  directory = pathlib.Path(directory)
  if not (directory / 'best').exists():
    raise FileNotFoundError(
      f'No SASRec in {directory} (best/ is missing): train it first.'
    )
  shape = cfg.network(num_items)
  with checkpoint.Checkpointer(directory / 'best') as best:
    return Model(shape, best.restore(_init(shape, mesh, seed=0))[0], mesh)


@functools.lru_cache(maxsize=4)
def _training(
  shape: network.NetworkConfig, config: optimiser.OptimiserConfig
) -> tuple[optimiser.Optimiser, step.TrainStep]:
  """Makes the update once, so that equal trainings share its compilation."""
  tx = optimiser.make(config)
  loss = functools.partial(network.loss, shape)
  return tx, step.make_train_step(loss, tx)


def _validation(
  dataset: dataset_lib.Dataset,
  splits: splits_lib.Splits,
  cfg: SASRecConfig,
  shape: network.NetworkConfig,
  mesh: jax.sharding.Mesh,
  *,
  best: checkpoint.Checkpointer,
  seed: int,
) -> Callable[[state.TrainState], dict[str, float]]:
  """Returns the evaluation of a state; the best one is kept in `best`."""
  users, positions = splits.examples['valid']
  rng = np.random.default_rng(seed)
  chosen = rng.permutation(len(users))[: cfg.valid_users]
  histories = [dataset.sequence(users[i])[: positions[i]] for i in chosen]
  targets = np.array(
    [dataset.sequence(users[i])[positions[i]] for i in chosen], np.int32
  )

  def evaluate(now: state.TrainState) -> dict[str, float]:
    ranks = find_ranks(Model(shape, now.params, mesh), histories, targets)
    found = {
      'valid_recall@10': float(metrics.recall_at_k(ranks, 10)),
      _METRIC: float(metrics.ndcg_at_k(ranks, 10)),
    }
    done, latest = int(now.step), best.latest
    record = -1.0 if latest is None else best.restore(now.params)[2]
    # A run killed after this point finds its own step here when it resumes.
    if found[_METRIC] > record and done > (latest or 0):
      best.save(done, now.params, meta=found[_METRIC])
      best.wait()  # It is there before the checkpoint of this step is.
    return found

  return evaluate


def _stopped(directory: pathlib.Path, patience: int) -> bool:
  """Reads from the metrics whether validation stopped getting better."""
  records = files.read_jsonl(directory / 'metrics.jsonl')
  values = [record[_METRIC] for record in records if _METRIC in record]
  return bool(values) and len(values) - 1 - np.argmax(values) >= patience


def _init(
  shape: network.NetworkConfig, mesh: jax.sharding.Mesh, seed: int
) -> Any:
  example = jnp.zeros((1, 2), jnp.int32)

  def start(key: jax.Array) -> Any:
    return network.SASRec(shape).init(key, example, example, example)['params']

  key = jax.random.key(seed)
  return sharding.init(start, mesh, sharding.TRAIN_RULES, key)[0]


def _batches(
  source: sasrec_data.Histories, cfg: SASRecConfig, seed: int
) -> seeded.Seeded:
  batches = pipeline.lm_iterator(
    {'history': source}, {'history': 1.0}, cfg.length, cfg.batch_size, seed=seed
  )
  return seeded.Seeded(batches, seed)
