"""How good explanations are, measured without a judge.

Whom they cite and how varied their words are; whether what they say is true is
not seen here. The measures are our choice, distinct n-grams after Li et al.
2016 ("A diversity-promoting objective function for neural conversation
models").
"""

import itertools
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from gr2_jax.teacher import citations as citations_lib

ORDERS = (1, 2, 3)


def measure(
  explanations: Sequence[str],
  histories: Sequence[Collection[int]],
  rankings: Sequence[Sequence[int]],
  citations: citations_lib.Citations,
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
  words = [citations_lib.words(text) for text in texts]
  numbers: dict[str, int] = {}
  flat = np.array(
    [numbers.setdefault(word, len(numbers)) for text in words for word in text],
    np.int64,
  )
  owner = np.repeat(np.arange(len(words)), [len(text) for text in words])
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
