"""Semantic IDs in explanations: which items they cite, and text without them.

A citation is a wrapped semantic ID, `<|sid_begin|><s_a_3>...<|sid_end|>`, as it
stands in the prompt; it names an item only where it is copied exactly.
"""

import re
from collections.abc import Mapping

import numpy as np

from gr2_jax.text import vocab as vocab_lib

_BEGIN, _END = map(re.escape, vocab_lib.WRAPPERS)
_CODES = r'(?:<s_[a-z]_[0-9]+>)+'
_CITATION = re.compile(f'({_BEGIN}{_CODES}{_END})')
_WRITTEN = re.compile(f'(?:{_BEGIN})?{_CODES}(?:{_END})?')
# Stands for any semantic ID among the words of a masked text.
MASK = '§'
_WORD = re.compile(rf'{MASK}|\w+')


class Citations:
  """Finds the items of a catalogue that texts cite."""

  def __init__(self, sids: np.ndarray):
    """Writes all semantic IDs once.

    Args:
      sids: int [I, L], without collisions.
    """
    begin, end = vocab_lib.WRAPPERS
    self._items = {
      begin + ''.join(map(vocab_lib.sid_text, range(len(sid)), sid)) + end: item
      for item, sid in enumerate(np.asarray(sids).tolist())
    }

  def find(self, text: str) -> list[int | None]:
    """Returns the cited items in their order; None for no item's ID."""
    return [self._items.get(cited) for cited in _CITATION.findall(text)]

  def named(self, text: str) -> dict[str, int]:
    """Returns the citations of a text that name items: as written, its item."""
    found = dict.fromkeys(_CITATION.findall(text))
    return {
      cited: self._items[cited] for cited in found if cited in self._items
    }


def split(text: str) -> list[str]:
  """Cuts a text at its citations, which have the odd places of what returns."""
  return _CITATION.split(text)


def with_titles(text: str, titles: Mapping[str, str]) -> str:
  """Puts titles in place of citations, for people.

  Args:
    text: an explanation.
    titles: by citation as it is written; one that is missing stays as it is.

  Returns:
    The text. It is plain: whoever puts it into a page must escape it.
  """
  return ''.join(titles.get(part, part) for part in split(text))


def words(text: str) -> list[str]:
  """Returns a text's words in lower case, every semantic ID as `MASK`.

  Bare and half-wrapped semantic IDs are masked too; punctuation is left out.
  """
  masked = _WRITTEN.sub(f' {MASK} ', text)
  return _WORD.findall(masked.casefold())
