"""The rules teacher's words: two short steps that cite a semantic ID.

The steps are GR2's [P]: the pattern of the history, and the match of one
history item with the chosen candidate. The third one, the choice, is in every
answer (`AnswerFormat.top`). Wording and length are our choice; a small model
generates them token by token, so they are short.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# How a chosen item may relate to the history; `NONE` where nothing is known.
CATEGORY, BRAND, WORD, FOLLOWS, NONE = (
  'category',
  'brand',
  'word',
  'follows',
  'none',
)

PATTERN = (
  'Pattern: mostly {first}, also {second}.',
  'Recent items are {first} and {second}.',
  'The history leans to {first}, then {second}.',
)
PATTERN_ONE = (
  'Pattern: mostly {first}.',
  'Recent items are {first}.',
  'The history leans to {first}.',
)
PATTERN_NONE = (
  'Pattern: mixed.',
  'Recent items are mixed.',
  'The history has no clear theme.',
)
MATCH = {
  CATEGORY: (
    ' Match: {name}, as in {cited}.',
    ' Like {cited} it is {name}.',
    ' It shares {name} with {cited}.',
  ),
  BRAND: (
    ' Match: brand {name}, as in {cited}.',
    ' Like {cited} it is from {name}.',
    ' It shares the brand {name} with {cited}.',
  ),
  WORD: (
    ' Match: the word {name}, as in {cited}.',
    ' Like {cited} it says {name}.',
    ' It shares the word {name} with {cited}.',
  ),
  FOLLOWS: (
    ' Match: often taken after {cited}.',
    ' After {cited} many go on to it.',
    ' It often follows {cited}.',
  ),
  NONE: (
    ' Match: a change from {cited}.',
    ' After {cited} comes something else.',
    ' It completes {cited}.',
  ),
}


@dataclasses.dataclass(frozen=True)
class Facts:
  """What one rationale says.

  Attributes:
    themes: names of what the history is about, at most two are used.
    relation: CATEGORY, BRAND, WORD, FOLLOWS or NONE.
    name: what is shared; unused for FOLLOWS and NONE.
    cited: wrapped semantic ID of the history item that matches.
  """

  themes: Sequence[str]
  relation: str
  name: str
  cited: str


def write(facts: Facts, style: Sequence[int]) -> str:
  """Writes a rationale.

  Args:
    facts: what to say.
    style: two numbers; each picks the wording of a step, modulo the choices.

  Returns:
    One line of text, with no quote, backslash or control character of its own.
  """
  first, second = [*facts.themes, '', ''][:2]
  patterns = PATTERN if second else PATTERN_ONE if first else PATTERN_NONE
  steps = (patterns, MATCH[facts.relation])
  text = ''.join(
    step[int(pick) % len(step)] for step, pick in zip(steps, style, strict=True)
  )
  return text.format(
    first=first,
    second=second,
    name=facts.name,
    cited=facts.cited,
  )


def templates() -> dict[str, list[str]]:
  """Returns all wordings by step, for the vocabulary and for budgets."""
  matches = [text for group in MATCH.values() for text in group]
  return {
    'pattern': [*PATTERN, *PATTERN_ONE, *PATTERN_NONE],
    'match': matches,
  }


def corpus(repeats: int = 30) -> list[str]:
  """Returns lines that make the words of the templates whole text pieces.

  Args:
    repeats: how often each wording counts beside the catalogue's texts.

  Returns:
    Lines for `Vocab.train`.
  """
  lines = []
  for step in templates().values():
    for text in step:
      bare = text.format(first='', second='', name='', cited='')
      lines.append(bare.replace('  ', ' '))
  return lines * repeats


def draw_style(rng: np.random.Generator) -> np.ndarray:
  """Draws the numbers of one rationale: wordings and relation, int [3]."""
  return rng.integers(0, 1 << 16, 3)
