"""Cross-fitted lists: training positions, by models that never saw their users.

A retriever knows the users that it was trained on, so that lists for their
training positions hold the target too often, and too far up. Here users are
divided into folds, and the lists of a fold come from a retriever that saw the
other users only (their training parts: no held-out position of anyone). Of its
lists those that hold their target are kept: nothing is put into a list. Their
evidence columns count the other users only, and their SASRec is one that was
trained on these.

Writes `workdir/candidates/folds.npz`: the arrays of `train.npz`, in the same
order, and `fold` int32 [N]. A fold trains in `candidates/fold<f>/`; its models
are removed when its lists are on disk.

The vocabulary and the semantic IDs are those of the run. The former knows items
only; of the latter, RQ-VAE's contrastive pairs saw the training parts of all
users where `sid.contrastive` is above 0: which codes an item has may then owe
something to a fold's own users, though not which item follows which.

By default the lists fit the weights of the evidence alone
(`candidates.fold_use`): the final language model was mid-trained on their
targets, ranks them far better by its own likelihood than unseen lists, and SFT
on them would teach trust in what it memorised. Where the config changes in the
middle of a fold, the training of that fold starts over.

All of it is our choice.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np

from gr2_jax import files, processes
from gr2_jax.data import splits as splits_lib
from gr2_jax.lm import io
from gr2_jax.run import artifacts, models, runner
from gr2_jax.stages import lists, midtraining, retrievers

# Files of a fold that are not needed once its lists are made.
_MODELS = (
  'model',
  'checkpoints',
  'examples',
  'new_rows/checkpoints',
  'new_rows/examples',
  'sasrec/checkpoints',
  'sasrec/best',
)


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
  """Users whose lists come from a retriever that never saw them.

  Attributes:
    index: f.
    users: int [n], increasing.
    positions: (user int32 [m], position int32 [m]), which get lists.
    others: what the retriever may know: the splits without these users.
  """

  index: int
  users: np.ndarray
  positions: tuple[np.ndarray, np.ndarray]
  others: splits_lib.Splits

  @property
  def name(self) -> str:
    """Names its directory and its chunks."""
    return f'fold{self.index}'


def divide(
  cfg: retrievers.CandidatesConfig, store: artifacts.Artifacts, seed: int
) -> list[Fold]:
  """Divides the users into folds.

  Args:
    cfg: how many folds, and which positions.
    store: gives the users.
    seed: of the division.

  Returns:
    The folds; none where the config asks for none.

  Raises:
    ValueError: more folds than users, a fold without a training position, or
      one whose other users give nothing to train on or to validate.
  """
  if not cfg.folds:
    return []
  splits, users = store.splits, store.dataset.num_users
  if cfg.folds > users:
    raise ValueError(
      f'candidates.folds is {cfg.folds}, but {store.dataset.name!r} has '
      f'{users} users: give at most as many.'
    )
  split = store.split
  order = np.random.default_rng(seed).permutation(users)
  folds = []
  for index in range(cfg.folds):
    own = np.sort(order[index :: cfg.folds])
    positions = splits.inner(own, split.min_history, cfg.fold_positions)
    folds.append(Fold(index, own, positions, splits.without(own)))
    _check(folds[-1], split.min_history)
  return folds


def _check(fold: Fold, min_history: int) -> None:
  if not len(fold.positions[0]):
    raise ValueError(
      f'None of the {len(fold.users)} users of fold {fold.index} has a '
      f'training position with {min_history} or more items before it '
      '(data.split.min_history): hold out fewer positions (data.split), take '
      'fewer candidates.folds, or set them to 0.'
    )
  learned = int((fold.others.train_end > 1).sum())
  valid = len(fold.others.examples['valid'][0])
  if not learned or not valid:
    raise ValueError(
      f'Beside fold {fold.index} there are {learned} users with a training '
      f'part of two items or more, and {valid} validation positions; its '
      'retriever needs both: hold out fewer positions (data.split), but at '
      'least one for validation, or set candidates.folds to 0.'
    )


def _train_lm(
  cfg: retrievers.CandidatesConfig,
  store: artifacts.Artifacts,
  context: runner.Context,
  fold: Fold,
  *,
  directory: pathlib.Path,
  seed: int,
) -> pathlib.Path:
  """Mid-trains on the other users; returns the directory of the model."""
  path = directory / 'model'
  if processes.on_first(io.exists, path):
    return path
  config, mesh = store.config, context.mesh
  sids = store.sids.shape[1], store.vocab.codes
  shape, params, _ = models.start(config, sids, mesh, seed, lambda: store.vocab)
  job = midtraining.Training(
    config,
    store,
    store.vocab,
    fold.others,
    directory=directory,
    mesh=mesh,
    seed=seed,
    desc=f'candidates, {fold.name}',
    policy=context.policy(),
    tracking=context.tracking,
    share=cfg.fold_steps,
  )
  io.save(path, shape, job.run(shape, params))
  return path


def _make_lists(
  cfg: retrievers.CandidatesConfig,
  store: artifacts.Artifacts,
  context: runner.Context,
  fold: Fold,
) -> dict[str, np.ndarray]:
  """Makes the lists of a fold that hold their target."""
  directory = context.directory / fold.name
  seed = runner.stage_seed(context.seed, fold.name)
  processes.on_first(directory.mkdir, exist_ok=True)
  sources = retrievers.Sources(
    cfg,
    store,
    context,
    fold.others,
    directory=directory,
    seed=seed,
    find_model=lambda: _train_lm(
      cfg, store, context, fold, directory=directory, seed=seed
    ),
    scales=store.evidence_scales,
  )
  found = lists.collect(sources, cfg.source, fold.name, *fold.positions)
  arrays = lists.as_lists(sources, *fold.positions, *found)
  hits = arrays['target'] >= 0
  arrays = {name: array[hits] for name, array in arrays.items()}
  arrays['features'] = lists.features(sources, arrays)
  arrays['fold'] = np.full(int(hits.sum()), fold.index, np.int32)
  return arrays


def _drop_models(directory: pathlib.Path) -> None:
  for name in _MODELS:
    if (directory / name).exists():
      shutil.rmtree(directory / name)


def write(
  cfg: retrievers.CandidatesConfig,
  store: artifacts.Artifacts,
  context: runner.Context,
  folds: Sequence[Fold],
) -> dict[str, dict]:
  """Writes `folds.npz`; what an interrupted run made is kept.

  Args:
    cfg: of the stage.
    store: what earlier stages wrote.
    context: of the stage.
    folds: from `divide`.

  Returns:
    By the fold's index as text: `lists` that were made, `hits` among them that
    hold their target and are kept, and `hit_rate`.
  """
  made, summary = [], {}
  for fold in folds:
    path = context.directory / 'parts' / f'{fold.name}.npz'
    if not processes.on_first(path.exists):
      arrays = _make_lists(cfg, store, context, fold)
      processes.on_first(files.atomic_savez, path, **arrays)
    processes.on_first(_drop_models, context.directory / fold.name)
    made.append(files.read_npz(path))
    size, hits = len(fold.positions[0]), len(made[-1]['user'])
    summary[str(fold.index)] = {
      'lists': size,
      'hits': hits,
      'hit_rate': hits / size,
    }
  arrays = {k: np.concatenate([each[k] for each in made]) for k in made[0]}
  order = np.lexsort((arrays['position'], arrays['user']))
  processes.on_first(
    files.atomic_savez,
    context.directory / 'folds.npz',
    **{name: array[order] for name, array in arrays.items()},
  )
  return summary
