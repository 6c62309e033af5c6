"""The answer of a re-ranker: JSON whose delimiters are single tokens.

    {"explanation": "WORDS First: SID_1", "recommendations": ["SID_1", ...]}

The text is GR2's [P] and valid JSON for every reader; the five delimiters below
are one token each (ours), so that constraints, parsing and rewards work on
token ids. An explanation is its words, if any, then `top` and the item that is
ranked first (our choice: so what is said and what is ranked cannot differ). In
the list a semantic ID is its L tokens without wrappers, elsewhere it has them:
with L = 4 a candidate costs 5 tokens in place of 7.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

OPEN = '{"explanation": "'
TOP = ' First: '
MID = '", "recommendations": ["'
SEP = '", "'
CLOSE = '"]}'
DELIMITERS = (OPEN, TOP, MID, SEP, CLOSE)

# What may not stand bare inside a JSON string: control bytes, '"' and '\'.
UNSAFE_BYTES = frozenset([*range(0x20), 0x22, 0x5C])

REASONING, RANKING = 0, 1

_UNSAFE_TEXT = str.maketrans(
  {**{chr(b): ' ' for b in range(0x20)}, '"': "'", '\\': '/'}
)


@dataclasses.dataclass(frozen=True)
class AnswerFormat:
  """The token ids of an answer; hashable, static under `jax.jit`.

  Attributes:
    open: id of the delimiter before the explanation.
    top: id of the delimiter between the explanation's words and the item that
      is ranked first, which ends it.
    mid: id of the delimiter between explanation and list.
    sep: id of the delimiter between two semantic IDs.
    close: id of the delimiter that ends the list.
    eos: id that ends the answer.
    pad: id that fills rows up; it may be `eos`.
    sid_begin: id before a semantic ID in an explanation.
    sid_end: id behind it.
    sid_offset: id of level 0, code 0; level l, code c is
      `sid_offset + l * codes + c` (`level_start`, `sid_tokens`).
    levels: L.
    codes: C.
    unsafe: ids of the text pieces that no explanation may hold: those with a
      quote, a backslash or a control byte, which would break its JSON string;
      the control ids, which are no text (begin, the special tokens of a
      pretrained tokenizer); and the tokens of prompts alone, tasks and roles.
    other_ends: further ids that end what a foreign model writes.
  """

  open: int
  top: int
  mid: int
  sep: int
  close: int
  eos: int
  pad: int
  sid_begin: int
  sid_end: int
  sid_offset: int
  levels: int
  codes: int
  unsafe: tuple[int, ...] = ()
  other_ends: tuple[int, ...] = ()

  def level_start(self, level):
    """Returns the id of code 0 of levels: an int, or arrays of them."""
    return self.sid_offset + level * self.codes

  def sid_tokens(self, sids):
    """Returns the ids of semantic IDs: int [..., L], of NumPy or JAX."""
    levels = np.arange(self.levels, dtype=np.int32)
    shape = (1,) * (sids.ndim - 1) + (self.levels,)
    return sids + self.level_start(levels).reshape(shape)

  def ends(self, tokens):
    """Returns which tokens, of NumPy or JAX, are the last of an answer."""
    ended = tokens == self.eos
    for other in self.other_ends:
      ended |= tokens == other
    return ended


def unsafe_pieces(pieces: Sequence[bytes]) -> list[int]:
  """Returns which text pieces no explanation may hold, by their bytes."""
  return [
    i
    for i, piece in enumerate(pieces)
    if not piece or not UNSAFE_BYTES.isdisjoint(piece)
  ]


def check_delimiters(found: object, directory: pathlib.Path) -> None:
  """Refuses a vocabulary whose answers have other delimiters.

  Args:
    found: those that it was saved with, a list of texts.
    directory: where.

  Raises:
    ValueError: they are not `DELIMITERS`: the ids of its models are others.
  """
  if found != list(DELIMITERS):
    raise ValueError(
      f'The vocabulary in {directory} has the delimiters {found}, answers of '
      f'this version {list(DELIMITERS)}: train the run again, or use the '
      'version that made it.'
    )


def clean_explanation(text: str) -> str:
  """Replaces what JSON would have to escape: quotes, backslashes, controls."""
  return text.translate(_UNSAFE_TEXT)
