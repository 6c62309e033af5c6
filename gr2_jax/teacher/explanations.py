"""What explanations say, by their words alone: no model judges them here.

Which items they cite, which of them nearly repeat each other, and how varied
they are; whether what they say is true is not seen.

Near duplicates have a high Jaccard similarity of their sets of three
neighbouring words, with semantic IDs masked: a text that fits every list
teaches no reasoning. Distinct n-grams are those of Li et al. 2016 ("A
diversity-promoting objective function for neural conversation models"). The
measures and the width are our choice.
"""

import collections
import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from gr2_jax.text import semantic_ids

# Stands for any semantic ID among the words of a masked text.
MASK = '§'
_WORD = re.compile(rf'{MASK}|\w+')
# Words in a row that near duplicates are compared by.
WIDTH = 3
# Shares such as 0.8 * 5 are no exact floats.
_EPSILON = 1e-9
# Of distinct n-grams.
ORDERS = (1, 2, 3)


def words(text: str) -> list[str]:
  """Returns a text's words in lower case, every semantic ID as `MASK`.

  Bare and half-wrapped semantic IDs are masked too; punctuation is left out.
  """
  masked = semantic_ids.mask(text, f' {MASK} ')
  return _WORD.findall(masked.casefold())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
  """Returns the runs of `WIDTH` words of a text; of a shorter text itself."""
  told = words(text)
  count = max(len(told) - WIDTH + 1, 1)
  return frozenset(tuple(told[i : i + WIDTH]) for i in range(count))


def near_duplicates(texts: Sequence[str], threshold: float) -> set[int]:
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
  frequency = collections.Counter(run for own in sets for run in own)
  kept_by = collections.defaultdict(list)
  found = set()
  for row, own in enumerate(sets):
    rarest = sorted(own, key=lambda run: (frequency[run], run))
    shared = math.ceil(threshold * len(own) - _EPSILON)
    prefix = rarest[: len(own) - shared + 1]
    others = {other for run in prefix for other in kept_by[run]}
    if any(_similar(own, sets[other], threshold) for other in others):
      found.add(row)
    else:
      for run in prefix:
        kept_by[run].append(row)
  return found


def _similar(left: frozenset, right: frozenset, threshold: float) -> bool:
  shared = len(left & right)
  union = len(left) + len(right) - shared
  return shared >= threshold * union - _EPSILON


def measure(
  explanations: Sequence[str],
  histories: Sequence[Collection[int]],
  rankings: Sequence[Sequence[int]],
  citations: semantic_ids.Citations,
) -> dict[str, float]:
  """Measures N explanations.

  Args:
    explanations: N texts.
    histories: the items that were shown beside each.
    rankings: the list that each explains, all candidates, best first.
    citations: finds what texts cite.

  Returns:
    `explanations`, N; `citing`, the share that cite any semantic ID; over all
    citations the share that name an item at all (`cited_exist`), one of the
    history (`cited_history`), one of the candidates (`cited_candidates`);
    `last_is_top`, the share of the explanations whose last citation is the
    list's first item; `distinct_1` to `distinct_3` (`distinct`). Shares of
    nothing are 0.
  """
  cited = [citations.find(text) for text in explanations]
  last_is_top = [
    bool(items) and len(ranking) > 0 and items[-1] == ranking[0]
    for items, ranking in zip(cited, rankings, strict=True)
  ]
  return {
    'explanations': len(explanations),
    'citing': _share(map(bool, cited)),
    'cited_exist': _share(
      item is not None for items in cited for item in items
    ),
    'cited_history': _share(_among(cited, histories)),
    'cited_candidates': _share(_among(cited, rankings)),
    'last_is_top': _share(last_is_top),
    **{f'distinct_{n}': round(distinct(explanations, n), 4) for n in ORDERS},
  }


def distinct(texts: Sequence[str], n: int) -> float:
  """Returns the number of different n-grams over that of all, 0 for none.

  Words are in lower case, and every semantic ID is the same word. The more
  texts, the lower: compare equal numbers of them.

  Args:
    texts: what is read as one corpus; no n-gram spans two of them.
    n: words in a row, 1 or more.
  """
  told = [words(text) for text in texts]
  numbers: dict[str, int] = {}
  flat = np.array(
    [numbers.setdefault(word, len(numbers)) for text in told for word in text],
    np.int64,
  )
  owner = np.repeat(np.arange(len(told)), [len(text) for text in told])
  grams = flat
  for shift in range(1, n):
    # Numbered again each time, so that the product stays small.
    grams = np.unique(grams, return_inverse=True)[1]
    grams = grams[:-1] * max(len(numbers), 1) + flat[shift:]
  grams = grams[owner[: len(grams)] == owner[n - 1 :]]
  return len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def _among(
  cited: Sequence[Sequence[int | None]], groups: Sequence[Collection[int]]
) -> itertools.chain[bool]:
  """Returns for each citation whether it is in the group of its text."""
  sets = [{int(item) for item in group} for group in groups]
  pairs = zip(cited, sets, strict=True)
  return itertools.chain.from_iterable(
    [item in group for item in items] for items, group in pairs
  )


def _share(flags: Iterable[bool]) -> float:
  values = list(flags)
  return round(sum(values) / len(values), 4) if values else 0.0
