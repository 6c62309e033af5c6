"""What a teacher is asked and what it answers."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """One list to be ranked and explained.

  Attributes:
    history: item indices that the user engaged with, oldest first.
    candidates: item indices in pre-rank order, int [K].
    hint: the true next item in targeted sampling, to be explained; None in
      rejection sampling, where a teacher must not know it.
  """

  history: np.ndarray
  candidates: np.ndarray
  hint: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """What a teacher says about a list.

  Attributes:
    ranking: item indices, best first.
    explanation: why, in three short steps, citing wrapped semantic IDs.
  """

  ranking: list[int]
  explanation: str


class Teacher(Protocol):
  """Ranks lists and explains the rankings.

  Attributes:
    name: how reports call it: 'rules', or a model's name.
  """

  name: str

  def answer(
    self, requests: Sequence[Request], attempt: int, rng: np.random.Generator
  ) -> list[Answer]:
    """Answers all requests.

    Args:
      requests: the lists.
      attempt: 0 for the first time that these are asked, then 1, ...; a later
        attempt is sampled more boldly.
      rng: the only source of chance.

    Returns:
      One answer a request, in their order. An answer may be unusable; what is
      done then is the caller's (`sampling.collect`).
    """
