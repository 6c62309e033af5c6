"""Semantic IDs as text.

A semantic ID of L codes is `<s_a_3><s_b_0>...` [P]: a token a code, whose
letter is the level. Bare it stands in the list of an answer, wrapped in `BEGIN`
and `END` [P] everywhere else. The ids of its tokens: `answer.AnswerFormat`.

A citation is a wrapped semantic ID as it stands in the prompt; it names an item
only where it is copied exactly.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

WRAPPERS = BEGIN, END = '<|sid_begin|>', '<|sid_end|>'
MAX_LEVELS = 26  # They are lettered.
# Pattern of a token.
TOKEN = '<s_[a-z]_[0-9]+>'

_BARE = f'(?:{TOKEN})+'
_BEGIN, _END = re.escape(BEGIN), re.escape(END)
_CITATION = re.compile(f'({_BEGIN}{_BARE}{_END})')
_WRITTEN = re.compile(f'(?:{_BEGIN})?{_BARE}(?:{_END})?')


class Citations:
  """Finds the items of a catalogue that texts cite."""

  def __init__(self, sids: np.ndarray):
    """Writes all semantic IDs once.

    Args:
      sids: int [I, L], without collisions.
    """
    rows = np.asarray(sids).tolist()
    self._items = {wrap(write(sid)): item for item, sid in enumerate(rows)}

  def find(self, text: str) -> list[int | None]:
    """Returns the cited items in their order; None for no item's ID."""
    return [self._items.get(cited) for cited in _CITATION.findall(text)]

  def named(self, text: str) -> dict[str, int]:
    """Returns the citations of a text that name items: as written, its item."""
    found = dict.fromkeys(_CITATION.findall(text))
    return {
      cited: self._items[cited] for cited in found if cited in self._items
    }


def token(level: int, code: int) -> str:
  """Writes a code: level 0, code 3 is `<s_a_3>` [P]."""
  return f'<s_{chr(ord("a") + level)}_{code}>'


def write(sid: Sequence[int]) -> str:
  """Writes a semantic ID, bare: [L] -> '<s_a_3><s_b_0>...'."""
  return ''.join(token(level, int(code)) for level, code in enumerate(sid))


def wrap(bare: str) -> str:
  """Wraps a semantic ID."""
  return f'{BEGIN}{bare}{END}'


def unwrap(text: str) -> str:
  """Undoes `wrap`; what is not wrapped stays as it is."""
  if text.startswith(BEGIN) and text.endswith(END):
    return text[len(BEGIN) : -len(END)]
  return text


def split(text: str) -> list[str]:
  """Cuts a text at its citations, which have the odd places of what returns."""
  return _CITATION.split(text)


def with_titles(text: str, titles: Mapping[str, str]) -> str:
  """Puts titles in place of citations, for people.

  Args:
    text: an explanation.
    titles: by citation as it is written; one that is missing stays as it is.

  Returns:
    The text. It is plain: escape it before it goes into a page.
  """
  return ''.join(titles.get(part, part) for part in split(text))


def mask(text: str, by: str) -> str:
  """Puts `by` in place of semantic IDs, bare and half-wrapped ones too."""
  return _WRITTEN.sub(by, text)
