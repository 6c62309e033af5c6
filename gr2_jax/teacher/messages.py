"""The messages to a language model, and its answers.

The messages follow GR2's five principles [P]: role and task; history and all
candidates shown together, every item as wrapped semantic ID, title and category
path; knowledge priming; reasoning that must cite semantic IDs; three steps. The
words are ours, one folder a version:

    templates/VERSION/system.txt     role, task, steps and form of the answer
                      priming.txt    how people choose
                      user.txt       history, candidates and the task
                      rejection.txt  the task of a list without a hint
                      targeted.txt   the task of a list with one

What `Writer` fills in stands as `$name`. Whoever changes a file makes a new
version of it: its hash is part of what answers are kept under.

Explanations are accepted by the run's own tokens, and a teacher is given a
number of words: what is left beside three semantic IDs, at `tokens_a_word`. It
sees as much history as the run's own prompts show: what it cites beyond that,
the model it teaches could not know.

Answers are read exactly, or not at all. The only repairs [our choice]: the
reasoning that some models put in front is taken off, `<think>...</think>`, or
with `thinking`, `thought`, `reasoning` or `seed:think` in the tags, in any
case, also where the chat template has opened it and the text holds the closing
tag alone; and so is one code fence around the whole, of backticks or tildes,
whatever its language is called.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.teacher import acceptance, base, catalogue
from gr2_jax.teacher import config as teacher_config
from gr2_jax.text import semantic_ids

TEMPLATES = pathlib.Path(__file__).resolve().parent / 'templates'
_TEMPLATE_NAMES = ('system', 'priming', 'user', 'rejection', 'targeted')
# How many semantic IDs an explanation may cite, and how many words three steps
# take at the least [our choice].
CITATIONS = 3
_FEWEST_WORDS = 6
_KEYS = ('explanation', 'recommendations')
_TAG = r'(?:\w+:)?(?:think|thinking|thought|reasoning)>'
_OPENED = re.compile(f'<{_TAG}', re.IGNORECASE)
_CLOSED = re.compile(f'</{_TAG}', re.IGNORECASE)
_FENCED = re.compile(r'(```|~~~)[a-zA-Z0-9]*(?P<inside>.*)\1', re.DOTALL)


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
    cfg: teacher_config.MessageConfig,
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
    texts = read_templates(cfg.version)
    self.digest = digest(texts)
    self.words = _words(explanation_tokens, cfg.tokens_a_word, sids.shape[1])
    self._templates = {
      name: string.Template(text) for name, text in texts.items()
    }
    priming = f'\n{texts["priming"]}\n' if cfg.priming else ''
    self._system = self._templates['system'].substitute(
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
      task = self._templates['rejection'].substitute(count=count)
    else:
      hint = self._catalogue.line(request.hint)
      task = self._templates['targeted'].substitute(count=count, hint=hint)
    shown = request.history[-self.cfg.history_items :]
    user = self._templates['user'].substitute(
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
    """Reads what a model wrote; see `read_answer`.

    Args:
      text: all of it.
      request: what it answers to.

    Returns:
      The answer, without counts of tokens. Items that are no candidates are
      read as well: `acceptance.rejection_reason` turns them down.
    """
    del request
    return read_answer(text, self._catalogue.index)

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


def read_templates(version: str) -> dict[str, str]:
  """Reads the templates of a version.

  Args:
    version: a folder in `TEMPLATES`.

  Returns:
    Name of a file -> its text, without the line break at its end.

  Raises:
    ValueError: there is no such version.
  """
  known = sorted(path.name for path in TEMPLATES.iterdir())
  if version not in known:
    raise ValueError(
      f'traces.prompt.version is {version!r}; {TEMPLATES} holds {known}.'
    )
  return {
    name: (TEMPLATES / version / f'{name}.txt').read_text('utf-8').strip()
    for name in _TEMPLATE_NAMES
  }


def digest(templates: Mapping[str, str]) -> str:
  """Returns a hash of templates, 16 hex digits."""
  found = hashlib.sha256()
  for name, text in templates.items():
    found.update(f'{name}\n{text}\n'.encode())
  return found.hexdigest()[:16]


def read_answer(text: str, index: Mapping[str, int]) -> base.Answer:
  """Reads an answer.

  Args:
    text: all that the model wrote.
    index: bare semantic IDs of the whole catalogue, as text -> item.

  Returns:
    The answer with its text, or with a problem and neither ranking nor
    explanation: 'not_json' (no JSON object of Unicode text, or a key twice),
    'wrong_keys' (other keys, or values of other types), 'unknown_item' (a
    recommendation that is not, letter by letter, an item's semantic ID, with or
    without its wrappers). Whether the items are the candidates, each once, is
    `acceptance.rejection_reason`'s.
  """
  problem = lambda reason: base.Answer([], '', reason, text=text)
  try:
    value = parse_json(text)
  except ValueError:
    return problem(acceptance.NOT_JSON)
  if not isinstance(value, dict) or set(value) != set(_KEYS):
    return problem(acceptance.WRONG_KEYS)
  explanation, named = (value[key] for key in _KEYS)
  if not isinstance(explanation, str) or not isinstance(named, list):
    return problem(acceptance.WRONG_KEYS)
  if not all(isinstance(name, str) for name in named):
    return problem(acceptance.WRONG_KEYS)
  ranking = [index.get(semantic_ids.unwrap(name)) for name in named]
  if None in ranking:
    return problem(acceptance.UNKNOWN_ITEM)
  return base.Answer(ranking, explanation, text=text)


def parse_json(text: str) -> Any:
  """Returns the JSON value of an answer, without its thought and its fence.

  A closing tag inside of an answer that is JSON by itself is its text.

  Args:
    text: all that the model wrote.

  Raises:
    ValueError: it is no JSON of Unicode text.
  """
  text = text.strip()
  try:
    return _value(text)
  except ValueError:
    closed = _CLOSED.search(text)
    # A tag that opens stands at the begin, or was part of the prompt.
    if not closed or _OPENED.search(text, 1, closed.start()):
      raise
  return _value(text[closed.end() :].strip())


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


def _value(text: str) -> Any:
  fenced = _FENCED.fullmatch(text)
  try:
    value = json.loads(
      fenced['inside'] if fenced else text,
      object_pairs_hook=_once,
      parse_constant=_no_such_number,
    )
  except RecursionError as error:
    raise ValueError('Too many brackets.') from error
  # A lone surrogate, which JSON can spell, is no text.
  json.dumps(value, ensure_ascii=False).encode()
  return value


def _once(pairs: list[tuple[str, Any]]) -> dict:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError(f'A key stands twice: {[key for key, _ in pairs]}.')
  return found


def _no_such_number(name: str) -> None:
  raise ValueError(f'{name} is no JSON.')
