"""A teacher that answers what a script says, until it is killed."""

import numpy as np

from gr2_jax.teacher import acceptance, base
from gr2_jax.text import semantic_ids

SIDS = np.stack([np.arange(24) // 5, np.arange(24) % 5], axis=1)


def cite(item):
  """Writes an item's wrapped semantic ID."""
  a, b = SIDS[item]
  return f'<|sid_begin|><s_a_{a}><s_b_{b}><|sid_end|>'


def request(candidates, history=(0,), hint=None):
  return base.Request(np.array(history, int), np.array(candidates, int), hint)


def accept(fits=lambda text: True, near_duplicate=0.0, names_top=True):
  found = semantic_ids.Citations(SIDS)
  return acceptance.Acceptance(fits, found, near_duplicate, names_top)


def sound(ranking, words='because of', history=0):
  """An answer that cites a history item and its own first item."""
  text = f'{words} {cite(history)}: {cite(ranking[0])}'
  return base.Answer(list(ranking), text)


class Killed(Exception):
  """Stands for SIGKILL."""


class Scripted:
  """Answers `script(request, attempt, seed)`.

  Attributes:
    asked: (attempt, candidates, hint) of all that was asked, in that order.
    answered: the same of what was answered.
  """

  name = 'scripted'

  def __init__(self, script, order=None, lives=None):
    """Takes a script.

    Args:
      script: gives one answer.
      order: a generator that shuffles and groups answers; None: one group, in
        the order of the requests.
      lives: answers until it is killed.
    """
    self.identity = {'script': 'first'}
    self.script, self.order, self.lives = script, order, lives
    self.asked, self.answered = [], []

  def answer(self, requests, attempt, seeds):
    names = [(attempt, tuple(r.candidates.tolist()), r.hint) for r in requests]
    self.asked += names
    rows, groups = np.arange(len(requests)), 1
    if self.order is not None:
      rows = self.order.permutation(rows)
      groups = 1 + int(self.order.integers(len(rows)))
    for group in np.array_split(rows, groups):
      if self.lives is not None:
        self.lives -= len(group)
        if self.lives < 0:
          raise Killed
      self.answered += [names[row] for row in group]
      yield [
        (int(row), self.script(requests[row], attempt, seeds[row]))
        for row in group
      ]
