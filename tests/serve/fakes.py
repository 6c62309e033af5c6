"""An engine without a model: the later in the alphabet, the better."""

import pathlib
import threading
import time

import numpy as np

from gr2_jax import rerank
from gr2_jax.data import dataset
from gr2_jax.serve import requests

TITLES = {f'i{i}': f'Film <b>{i}</b>' for i in range(9)}


class Sorts:
  """Sorts candidates downwards. Some ids have effects of their own.

  'slow' takes a tenth of a second, 'boom' raises, 'free' gets no valid answer.
  A run called 'stuck' is never ready.
  """

  explains = True
  most_candidates = 100

  def __init__(self, workdir='/runs/fake', titles=None, explains=True):
    self.workdir = pathlib.Path(workdir)
    self.titles = dict(TITLES if titles is None else titles)
    self.explains, self.trained = explains, len(self.titles)
    self.batches, self.warm, self.saved = [], 0, []

  @property
  def name(self):
    return f'{self.workdir.name}/rl'

  @property
  def items(self):
    return [dataset.Item(name, text) for name, text in self.titles.items()]

  @property
  def added(self):
    return self.items[self.trained :]

  def knows(self, item_id):
    return item_id in self.titles

  def title(self, item_id):
    return self.titles.get(item_id, '')

  def warm_up(self):
    self.warm += 1
    if self.workdir.name == 'stuck':
      threading.Event().wait()

  def answer(self, kind, lists, where):
    self.batches.append((kind, len(lists)))
    return [
      self._answer(kind, *each) for each in zip(lists, where, strict=True)
    ]

  def _answer(self, kind, record, where):
    ids = record.get('candidates')
    if isinstance(ids, list) and 'slow' in ids:
      time.sleep(0.1)
    if problem := requests.problem(requests.Input(record, where)):
      return rerank.Answer({'error': problem}, True)
    if 'boom' in ids:
      raise RuntimeError('a secret of the inside')
    if len(ids) < 2:
      return rerank.Answer({'error': f'{where}: give 2 or more.'}, True)
    valid = 'free' not in ids
    order = sorted(ids, reverse=True) if valid else ids
    answer = {
      'order': order,
      'scores': [float(-i) for i in range(len(ids))],
      'explanation': '',
      'explanation_titles': 'Likes <i>late</i>.' if kind != 'direct' else '',
      'valid': valid,
    }
    return rerank.Answer(record | answer, False)

  def grow(self, items):
    made = Sorts(self.workdir, self.titles, self.explains)
    made.trained, made.saved = self.trained, self.saved
    for item in items:
      made.titles[item.item_id] = item.title
    first = len(self.titles)
    return made, np.arange(first, first + len(items))[:, None]

  def save(self, path):
    self.saved.append((path, [item.item_id for item in self.added]))
