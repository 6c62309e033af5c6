"""A small model, as workers of Beam load it in processes of their own."""

import os
import pathlib
import signal

import jax
import numpy as np

from gr2_jax import assets, sharding
from gr2_jax.data import dataset
from gr2_jax.rank import evidence
from gr2_jax.ranker import ranker
from tests.integration import small

# While it lies in the workdir, a process that ranks removes it and is killed.
FATAL = 'fatal'


class Mortal(ranker.Ranker):
  """A ranker whose process may be killed in the middle of a part."""

  def rank(self, *args, **options):
    path = self.store.workdir / FATAL
    if path.exists():
      path.unlink()
      os.kill(os.getpid(), signal.SIGKILL)
    return super().rank(*args, **options)


def load(workdir, model, mode=None, catalogue=None, progress=False):
  """Makes a ranker; `rerank.load` and `scoring.load` are called like this."""
  assets.keep_programs()
  weights = {'popularity': 0.3, 'content': 0.5, 'log_rank': 0.2}
  made = small.make_ranker(
    pathlib.Path(workdir),
    sharding.make_mesh(devices=jax.devices()[:1]),
    mode=mode or 'explained',
    given=small.head(1.0, weights, evidence.NAMES, words=0.5),
  )
  fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
  return Mortal(**{**fields, 'progress': progress})


class Codes:
  """Stands in for a tokenizer: codes are made of the items' texts."""

  def codes(self, items):
    assert all(isinstance(item, dataset.Item) for item in items)
    text = lambda item: f'{item.title} {item.categories} {item.price}'
    return np.array([[len(text(i)), ord(i.item_id[-1])] for i in items])


def load_codes(workdir):
  """Takes the place of `new_items.load`."""
  assert pathlib.Path(workdir).is_absolute()
  return Codes()
