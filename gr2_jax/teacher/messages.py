"""The messages to a language model, after GR2's five principles [P].

Role and task; history and all candidates shown together, every item as wrapped
semantic ID, title and category path; knowledge priming; reasoning that must
cite semantic IDs; three steps. The words are ours (`parts.py`).

Explanations are accepted by the run's own tokens, and a teacher is given a
number of words: what is left beside three semantic IDs, at `tokens_a_word`. It
sees as much history as the run's own prompts show: what it cites beyond that,
the model it teaches could not know.
"""

import dataclasses
import json
import string
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import base, catalogue, parts, reading

# How many semantic IDs an explanation may cite, and how many words three steps
# take at the least [our choice].
CITATIONS = 3
_FEWEST_WORDS = 6


@dataclasses.dataclass(frozen=True)
class MessageConfig:
  """What messages show; the defaults are our choice.

  Attributes:
    version: folder of the templates.
    priming: whether hints on sequential and complementary buying are given [P].
    history_items: at most this many of the last items; 0 for as many as the
      run's own prompts show.
    tokens_a_word: what a word takes of the run's own vocabulary: 1.5 of a
      pretrained one, more of a small one; 0 measures it.
    title_characters: a longer title is cut.
    category_characters: a longer category path loses its root first.
  """

  version: str = 'v1'
  priming: bool = True
  history_items: int = 0
  tokens_a_word: float = 0.0
  title_characters: int = 160
  category_characters: int = 120

  def __post_init__(self):
    for name in ('title_characters', 'category_characters'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'traces.prompt.{name} is {getattr(self, name)}; give 1 or more.'
        )
    for name in ('history_items', 'tokens_a_word'):
      value = getattr(self, name)
      if value < 0 or 0 < value < 1:
        raise ValueError(
          f'traces.prompt.{name} is {value}; give 1 or more, or 0, for which '
          'the run itself is asked.'
        )


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
  """How a language model samples; the defaults are our choice.

  Attributes:
    temperature: of the first attempt.
    temperature_step: what each further attempt adds.
    top_temperature: where it stops rising.
    top_p: the most probable tokens stay that together reach it; 1: all.
    max_tokens: of an answer, in the model's own tokens; ten semantic IDs take
      400 of a tokenizer that does not know them.
  """

  temperature: float = 0.7
  temperature_step: float = 0.1
  top_temperature: float = 1.2
  top_p: float = 0.95
  max_tokens: int = 1024

  def __post_init__(self):
    for name in ('temperature', 'temperature_step'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'traces.sampling.{name} is {getattr(self, name)}; give 0 or more.'
        )
    if self.top_temperature < self.temperature:
      raise ValueError(
        f'traces.sampling.top_temperature is {self.top_temperature}, below '
        f'the temperature {self.temperature} of the first attempt: raise it.'
      )
    if not 0 < self.top_p <= 1:
      raise ValueError(
        f'traces.sampling.top_p is {self.top_p}; give a probability in (0, 1].'
      )
    if self.max_tokens < 1:
      raise ValueError(
        f'traces.sampling.max_tokens is {self.max_tokens}; give 1 or more.'
      )

  def at(self, attempt: int) -> float:
    """Returns the temperature of an attempt, 0 for the first one."""
    raised = self.temperature + attempt * self.temperature_step
    return round(min(raised, self.top_temperature), 6)


class Writer:
  """Writes requests over one catalogue as messages, and reads the answers.

  What it writes is a function of the request and of the catalogue's texts
  alone: without a hint it knows of no item that is the true one. The first
  message is the same for all requests, so that a server can keep what it read
  of it.

  Attributes:
    cfg: what messages show.
    version: of the templates.
    digest: hash of the templates' text.
    words: the most words of an explanation, its citations not counted.
  """

  def __init__(
    self,
    items: Sequence[dataset_lib.Item],
    sids: np.ndarray,
    cfg: MessageConfig,
    explanation_tokens: int,
  ):
    """Reads the templates.

    Args:
      items: I items.
      sids: their semantic IDs, int [I, L], without collisions.
      cfg: what to show; its zeros are filled in.
      explanation_tokens: budget of an explanation in tokens of the run's own
        vocabulary, as answers are accepted; the model is told it in words.

    Raises:
      ValueError: a zero in `cfg`, other numbers of items and semantic IDs, a
        semantic ID that two items share, a version that does not exist, or a
        budget too small for three steps.
    """
    if not cfg.history_items or not cfg.tokens_a_word:
      raise ValueError(
        f'history_items = {cfg.history_items} and tokens_a_word = '
        f'{cfg.tokens_a_word}: a writer needs what these zeros stand for.'
      )
    self.cfg, self.version = cfg, cfg.version
    self._explanation_tokens = explanation_tokens
    self._catalogue = catalogue.Catalogue(
      items, sids, cfg.title_characters, cfg.category_characters
    )
    texts = parts.read(cfg.version)
    self.digest = parts.digest(texts)
    self.words = _words(explanation_tokens, cfg.tokens_a_word, sids.shape[1])
    self._parts = {name: string.Template(text) for name, text in texts.items()}
    priming = f'\n{texts["priming"]}\n' if cfg.priming else ''
    self._system = self._parts['system'].substitute(
      priming=priming, words=self.words, citations=CITATIONS
    )

  @property
  def identity(self) -> dict:
    """All that shapes the messages, as JSON holds it."""
    return {
      **dataclasses.asdict(self.cfg),
      'explanation_tokens': self._explanation_tokens,
      'digest': self.digest,
    }

  def messages(self, request: base.Request) -> list[dict[str, str]]:
    """Writes a request.

    Args:
      request: a list, with or without a hint.

    Returns:
      [{'role': 'system', 'content': ...}, {'role': 'user', 'content': ...}].
    """
    count = len(request.candidates)
    if request.hint is None:
      task = self._parts['rejection'].substitute(count=count)
    else:
      hint = self._catalogue.line(request.hint)
      task = self._parts['targeted'].substitute(count=count, hint=hint)
    shown = request.history[-self.cfg.history_items :]
    user = self._parts['user'].substitute(
      history=self._lines(shown) or '(none)',
      candidates=self._lines(request.candidates),
      count=count,
      task=task,
    )
    return [
      {'role': 'system', 'content': self._system},
      {'role': 'user', 'content': user},
    ]

  def read(self, text: str, request: base.Request) -> base.Answer:
    """Reads what a model wrote; see `reading.read`.

    Args:
      text: all of it.
      request: what it answers to.

    Returns:
      The answer, without counts of tokens. Items that are no candidates are
      read as well: `sampling.judge` turns them down.
    """
    del request
    return reading.read(text, self._catalogue.index)

  def sid(self, item: int) -> str:
    """Returns the wrapped semantic ID of an item."""
    return self._catalogue.sid(item)

  def schema(self, request: base.Request) -> dict:
    """Returns the JSON schema of an answer, for servers that hold to one.

    Args:
      request: a list; its hint is not read.

    Returns:
      The schema. In `recommendations` only the K candidates can stand, K times
      one of them; that each stands once is more than servers support.
    """
    sids = [self._catalogue.sid(int(item)) for item in request.candidates]
    return {
      'type': 'object',
      'properties': {
        'explanation': {'type': 'string'},
        'recommendations': {
          'type': 'array',
          'items': {'type': 'string', 'enum': sids},
          'minItems': len(sids),
          'maxItems': len(sids),
        },
      },
      'required': ['explanation', 'recommendations'],
      'additionalProperties': False,
    }

  def longest(self, request: base.Request) -> str:
    """Writes an answer as long as one may be, to measure it.

    Args:
      request: a list.

    Returns:
      JSON with the most words and citations, of no meaning.
    """
    sids = [self._catalogue.sid(int(item)) for item in request.candidates]
    words = ['something'] * self.words + sids[:1] * CITATIONS
    answer = {'explanation': ' '.join(words), 'recommendations': sids}
    return json.dumps(answer)

  def _lines(self, items: Sequence[int] | np.ndarray) -> str:
    lines = [self._catalogue.line(int(item)) for item in items]
    return '\n'.join(f'- {line}' for line in lines)


def _words(tokens: int, tokens_a_word: float, levels: int) -> int:
  """Returns how many words fit a budget beside the citations."""
  citations = CITATIONS * (levels + 2)
  words = int((tokens - citations) / tokens_a_word)
  if words < _FEWEST_WORDS:
    raise ValueError(
      f'An explanation of {tokens} tokens has room for {words} words of '
      f'{tokens_a_word} tokens beside {CITATIONS} semantic IDs '
      f'({citations} tokens), but three steps take {_FEWEST_WORDS}: raise '
      'rl.explanation_tokens (and with it rl.max_new_tokens and '
      'sft.train.length).'
    )
  return words
