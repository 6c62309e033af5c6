"""How many tokens answers and prompts take at most: the one place that counts.

An answer is `open` WORDS `top` SID `mid` LIST `close` `eos` (`text/answer.py`),
a prompt what `text/prompts.py` writes.
"""

import dataclasses
from typing import Any


def words(explanation_tokens: int) -> int:
  """Returns the tokens of the longest answer that ends with `top`."""
  return explanation_tokens + 2


def head(levels: int) -> int:
  """Returns the tokens between `top` and the list: an SID, wrapped, `mid`."""
  return levels + 3


def answer(levels: int, candidates: int, explanation_tokens: int) -> int:
  """Returns the tokens of the longest constrained answer, `eos` included.

  Args:
    levels: L of the semantic IDs.
    candidates: K.
    explanation_tokens: budget of the words.
  """
  listed = candidates * (levels + 1) + 1
  return words(explanation_tokens) + head(levels) + listed


def history(levels: int, items: int) -> int:
  """Returns the tokens of a number of items in a retrieval prompt, with `bos`.

  Args:
    levels: L of the semantic IDs.
    items: each is wrapped; two tokens stand in front.
  """
  return 2 + items * (levels + 2)


@dataclasses.dataclass(frozen=True)
class Budgets:
  """The most tokens that a run's prompts and answers take.

  Attributes:
    answer: of an answer with its explanation.
    direct: of an answer without one.
    prompt: of a re-ranking prompt, with the history in front.
    row: of a prompt with its answer.
  """

  answer: int
  direct: int
  prompt: int
  row: int


def budgets(config: Any) -> Budgets:
  """Derives the budgets of a run.

  Args:
    config: a whole config, as an `Experiment` or as a ConfigDict.
  """
  levels, shown = config.sid.levels, config.text.prompt
  longest = answer(levels, candidates(config), config.rl.explanation_tokens)
  direct = answer(levels, candidates(config), 0)
  prompt = history(levels, shown.retrieval_items) + shown.max_tokens
  return Budgets(longest, direct, prompt, prompt + longest)


def candidates(config: Any) -> int:
  """Returns K, of a synthetic world its own; `config` as for `budgets`."""
  if config.data.kind == 'synthetic':
    return config.data.world.k
  return config.candidates.k
