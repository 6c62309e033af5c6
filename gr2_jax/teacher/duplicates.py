"""Explanations that say nearly the same about different lists.

Similarity is Jaccard's of the sets of three neighbouring words, with semantic
IDs masked: a text that fits every list teaches no reasoning. Measure and width
are our choice.
"""

import collections
import math
from collections.abc import Sequence

from gr2_jax.teacher import citations

WIDTH = 3
# Shares such as 0.8 * 5 are no exact floats.
_EPSILON = 1e-9


def shingles(text: str) -> frozenset[tuple[str, ...]]:
  """Returns the runs of `WIDTH` words of a text; of a shorter text itself."""
  words = citations.words(text)
  count = max(len(words) - WIDTH + 1, 1)
  return frozenset(tuple(words[i : i + WIDTH]) for i in range(count))


def find(texts: Sequence[str], threshold: float) -> set[int]:
  """Finds the texts that nearly repeat an earlier one which is kept.

  Exact, by prefix filtering: two sets of that similarity share one of each
  one's rarest shingles, so only texts that do are compared.

  Args:
    texts: N texts; of two similar ones the later one is found.
    threshold: similarity in (0, 1] from which on two texts are one; 0 finds
      nothing.

  Returns:
    Indices of texts.
  """
  if not threshold:
    return set()
  sets = [shingles(text) for text in texts]
  frequency = collections.Counter(part for own in sets for part in own)
  kept_by = collections.defaultdict(list)
  found = set()
  for row, own in enumerate(sets):
    rarest = sorted(own, key=lambda part: (frequency[part], part))
    shared = math.ceil(threshold * len(own) - _EPSILON)
    prefix = rarest[: len(own) - shared + 1]
    others = {other for part in prefix for other in kept_by[part]}
    if any(_similar(own, sets[other], threshold) for other in others):
      found.add(row)
    else:
      for part in prefix:
        kept_by[part].append(row)
  return found


def _similar(left: frozenset, right: frozenset, threshold: float) -> bool:
  shared = len(left & right)
  union = len(left) + len(right) - shared
  return shared >= threshold * union - _EPSILON
