"""The lists of a run whose candidates are served slates (`data.slates`).

Of a graded list the one true item (for traces, SFT, Recall and NDCG@k) is the
best graded, first in pre-rank order. A list of several positives seldom fits
into one part of a `leave_one_out` split: use `last_n`. Retrieval is then
measured with the mid-trained model, since no list comes from a retriever.
"""

import pathlib

import numpy as np

from gr2_jax import files
from gr2_jax.data import slates as slates_lib
from gr2_jax.run import artifacts


def write(store: artifacts.Artifacts, k: int, directory: pathlib.Path) -> dict:
  """Writes `{train,valid,test}.npz` of the data set's slates.

  They have `grades` int32 [N, K] beside what retrieved lists have, and
  `columns` float32 [N, K, E], what slates carry (`store.user_columns`),
  as it is; but no `rank`. Slates come without scores: `scores` are minus the
  place.

  Args:
    store: the run's artifacts.
    k: K.
    directory: where to.

  Returns:
    A block of the stage's summary: `hit_rate` and `lists` by split, `slates`,
    the counts of `data.slates.make`.

  Raises:
    ValueError: no slates, or none to train on or none to test.
  """
  lists, counts = slates_lib.make(store.dataset, store.split, k)
  sizes = {name: len(part.user) for name, part in lists.items()}
  if not sizes['train'] or not sizes['test']:
    raise ValueError(
      f'The slates give {sizes} lists ({counts}), but both train and test need '
      'some. Slates count where the user has interactions before them, and '
      'their positives no later than the part they fall into: hold out more '
      "(data.split.kind='last_n', n_train, n_valid, n_test), and check that "
      'slates and interactions have timestamps of one unit.'
    )
  for name, part in lists.items():
    places = np.arange(k, dtype=np.float32)
    files.atomic_savez(
      directory / f'{name}.npz',
      user=part.user,
      position=part.position,
      candidates=part.candidates,
      scores=np.broadcast_to(-places, part.candidates.shape),
      target=part.target,
      grades=part.grades,
      columns=part.columns,
    )
  hit_rate = {name: 1.0 for name, size in sizes.items() if size}
  return {'hit_rate': hit_rate, 'lists': sizes, 'slates': counts}
