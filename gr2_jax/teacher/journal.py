"""Every answer of a teacher, kept as it comes: none is asked, or paid, twice.

A journal is a file of JSON lines. Its first line says whose answers it holds,
and its name is the hash of that: another teacher, prompt, temperature, mode,
seed or catalogue has another file, and no answer is ever taken for one of
theirs. Answers that were rejected are kept as well, since asking again would
give them again. Lines are only ever added.

An answer is found by its list and attempt. A list is known by user, position
and the hash of what is shown, so lists that a new retriever made are asked
again, and those that stayed as they were are not.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.teacher import base

_PLACE = ('user', 'position', 'list', 'attempt')
# User, position and hash of one list.
Key = tuple[int, int, str]


def keys(
  places: Sequence[tuple[int, int]], requests: Sequence[base.Request]
) -> list[Key]:
  """Names lists.

  Args:
    places: user and position of each.
    requests: what is shown of each, and the hint.

  Returns:
    One key a list. Two lists that agree in everything get different ones.
  """
  found, seen = [], collections.Counter()
  for (user, position), request in zip(places, requests, strict=True):
    shown = [
      np.asarray(request.history).tolist(),
      np.asarray(request.candidates).tolist(),
      request.hint,
    ]
    bare = (user, position, _hash(shown))
    again, seen[bare] = seen[bare], seen[bare] + 1
    found.append((user, position, _hash([*shown, again])) if again else bare)
  return found


class Journal:
  """The answers of one identity.

  Attributes:
    path: the file.
  """

  def __init__(self, directory: pathlib.Path, identity: dict):
    """Reads what is there; a last line that a crash cut off is removed.

    Args:
      directory: of all journals, made if missing.
      identity: all that shapes the answers beside the lists, as JSON holds it.

    Raises:
      ValueError: the file is damaged, or holds another identity's answers.
    """
    directory.mkdir(parents=True, exist_ok=True)
    self.path = directory / f'{config_lib.fingerprint(identity)}.jsonl'
    self._answers: dict[tuple[Key, int], base.Answer] = {}
    if self.path.exists():
      files.drop_cut_line(self.path)
    if not self.path.exists() or not self.path.stat().st_size:
      files.extend_jsonl(self.path, [{'identity': identity}])
      _sync(directory)
    lines = read(self.path)
    if next(lines) != {'identity': config_lib.to_dict(identity)}:
      raise ValueError(
        f'{self.path} does not begin with the identity that its name stands '
        f'for, {identity}: its answers are of another teacher; move it away.'
      )
    for line in lines:
      self._keep(line)

  def __len__(self) -> int:
    """Returns the number of answers."""
    return len(self._answers)

  def get(self, key: Key, attempt: int) -> base.Answer | None:
    """Returns an answer (its `text` is left on disk); None: not asked yet."""
    return self._answers.get((key, attempt))

  def text(self, key: Key, attempt: int) -> str:
    """Returns what a language model wrote, from disk; '' for no answer."""
    _, *lines = read(self.path)
    found = (x.get('text', '') for x in lines if _place(x) == (key, attempt))
    return next(found, '')

  def append(self, entries: Iterable[tuple[Key, int, base.Answer]]) -> None:
    """Adds (key, attempt, answer), and waits until they are on disk."""
    lines = [_line(*entry) for entry in entries]
    files.extend_jsonl(self.path, lines)
    for line in lines:
      self._keep(line)

  def _keep(self, line: dict) -> None:
    fields = {k: v for k, v in line.items() if k not in (*_PLACE, 'text')}
    self._answers[_place(line)] = base.Answer(**fields)


def read(path: pathlib.Path) -> Iterator[dict]:
  """Yields the lines of a journal: its identity, then answers.

  Args:
    path: the file.

  Yields:
    What each line holds.

  Raises:
    ValueError: a line is not one of a journal, with its number.
  """
  known = {field.name for field in dataclasses.fields(base.Answer)}
  for number, line in enumerate(files.read_jsonl(path), 1):
    least = {*_PLACE, 'ranking', 'explanation'} if number > 1 else {'identity'}
    most = least | known if number > 1 else least
    if not isinstance(line, dict) or not least <= set(line) <= most:
      raise ValueError(
        f'{path}:{number}: no line of a journal of answers; fix or remove it.'
      )
    yield line


def spent(directory: pathlib.Path, model: str) -> tuple[int, int]:
  """Counts what a model's answers in the journals took.

  Args:
    directory: of journals; it may be missing.
    model: whose answers.

  Returns:
    (requests that were answered, tokens of prompts and answers).
  """
  requests = tokens = 0
  for path in sorted(directory.glob('*.jsonl')):
    lines = read(path)
    head = next(lines, {}).get('identity', {})
    if head.get('identity', {}).get('model') != model:
      continue
    for line in lines:
      requests += 1
      tokens += line.get('prompt_tokens', 0) + line.get('completion_tokens', 0)
  return requests, tokens


def _place(line: dict) -> tuple[Key, int]:
  """Returns which list a line is of, and which attempt."""
  *key, attempt = (line[name] for name in _PLACE)
  return tuple(key), attempt


def _line(key: Key, attempt: int, answer: base.Answer) -> dict:
  """Returns an answer as JSON; what a field holds by default is left out."""
  user, position, shown = key
  line = {'user': user, 'position': position, 'list': shown, 'attempt': attempt}
  line['ranking'] = [int(item) for item in answer.ranking]
  line['explanation'] = answer.explanation
  for field in dataclasses.fields(answer):
    value = getattr(answer, field.name)
    if field.name not in line and value != field.default:
      line[field.name] = value
  return line


def _hash(shown: list) -> str:
  return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def _sync(directory: pathlib.Path) -> None:
  """Waits until a new file's name is on disk."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
