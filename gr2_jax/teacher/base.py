"""What a teacher is asked and what it answers."""

import dataclasses
from collections.abc import Iterator, Sequence
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
    ranking: item indices, best first; empty where the text cannot be read.
    explanation: why, in three short steps, citing wrapped semantic IDs.
    problem: why the text cannot be read, one of `acceptance.REASONS`; None
      where it can.
    text: what a language model wrote, whole; empty for the rules.
    prompt_tokens: that a language model read.
    completion_tokens: that it wrote.
  """

  ranking: list[int]
  explanation: str
  problem: str | None = None
  text: str = ''
  prompt_tokens: int = 0
  completion_tokens: int = 0


class Teacher(Protocol):
  """Ranks lists and explains the rankings.

  Attributes:
    name: how reports call it: 'rules', or a model's name.
    identity: all that shapes its answers beside requests and seeds (model,
      version and hash of the prompts, temperatures), as JSON holds it: answers
      of another identity are never taken for its own.
  """

  name: str
  identity: dict

  def answer(
    self, requests: Sequence[Request], attempt: int, seeds: Sequence[int]
  ) -> Iterator[list[tuple[int, Answer]]]:
    """Answers all requests.

    Args:
      requests: the lists.
      attempt: 0 for the first time that these are asked, then 1, ...; a later
        attempt is sampled more boldly.
      seeds: the only source of chance of each request, in [0, 2^31).

    Yields:
      Groups of (index of a request, its answer), as they come, in any order;
      each request once. An answer may be unusable; what is done then is the
      caller's (`sampling.collect`).
    """
