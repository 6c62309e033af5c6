"""Answers as JSON documents. Nothing here needs JAX."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from gr2_jax.serve import requests


def answer(
  given: requests.Input,
  found: dict,
  request: requests.Request,
  title: Callable[[str], str],
) -> dict:
  """Puts the answer to one list together.

  Args:
    given: the list.
    found: its record with `order`, `scores`, `explanation_titles`, `valid`.
    request: says how many results there are, and what they have.
    title: gives the title of an item that the catalogue has.

  Returns:
    `results`, best first, `explanation` with titles, and `valid`; `unknown` and
    `unknown_history` where there are such items.
  """
  places = {x: i for i, x in enumerate(given.record['candidates'])}
  scores = found['scores'] or [None] * len(found['order'])
  if request.probabilities:
    scores = probabilities(scores)
  results = []
  for item_id, score in zip(found['order'], scores, strict=True):
    result = {'index': places[item_id], 'relevance_score': score}
    if item_id not in given.texts:
      result['item_id'] = item_id
    if request.return_documents:
      text = given.texts.get(item_id) or title(item_id)
      result['document'] = {'text': text}
    results.append(result)
  optional = ('unknown', 'unknown_history', 'fallback')
  return {
    'results': results[: request.top_n],
    'explanation': found['explanation_titles'],
    'valid': found['valid'],
    **{key: found[key] for key in optional if key in found},
  }


def fallback(given: requests.Input, reason: str) -> dict:
  """Returns the incoming order of a list as `answer` reads it.

  Args:
    given: the list.
    reason: why it has no other, e.g. 'deadline'.
  """
  return {
    'order': given.record['candidates'],
    'scores': None,
    'explanation_titles': '',
    'valid': False,
    'fallback': reason,
  }


def probabilities(scores: Sequence[float | None]) -> list[float]:
  """Turns scores into numbers within 0 and 1 that fall in the same order.

  Args:
    scores: k utilities, best first; None of unknown items.

  Returns:
    k numbers: how likely each comes first (Plackett-Luce), 0 for None. Where
    there are no utilities at all, (k - place) / k, our choice.
  """
  known = [x for x in scores if x is not None]
  if not known:
    return [(len(scores) - i) / len(scores) for i in range(len(scores))]
  weights = [0.0 if x is None else math.exp(x - max(known)) for x in scores]
  return [weight / sum(weights) for weight in weights]


def usage(inputs: Sequence[requests.Input], rankings: Sequence[Any]) -> dict:
  """Counts what a request took.

  Args:
    inputs: its lists; what is none counts for nothing.
    rankings: a `ranking.Ranking` each, or None.
  """
  own = lambda key: [each.record.get(key) for each in inputs]
  count = lambda key: sum(len(x) for x in own(key) if isinstance(x, list))
  found = [x for x in rankings if x is not None]
  return {
    'history': count('history'),
    'candidates': count('candidates'),
    'prompt_tokens': sum(x.prompt_tokens for x in found),
    'completion_tokens': sum(x.tokens for x in found),
  }


def error(kind: str, message: str) -> dict:
  """Returns an error as all routes give it."""
  return {'error': {'type': kind, 'message': message}}
