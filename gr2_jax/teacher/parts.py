"""The words of the messages: one folder a version, one file a part.

    templates/VERSION/system.txt     role, task, steps and form of the answer
                      priming.txt    how people choose
                      user.txt       history, candidates and the task
                      rejection.txt  the task of a list without a hint
                      targeted.txt   the task of a list with one

What `messages.Writer` fills in stands as `$name`. Whoever changes a file makes
a new version of it: its hash is part of what answers are kept under.
"""

import hashlib
import pathlib
from collections.abc import Mapping

TEMPLATES = pathlib.Path(__file__).resolve().parent / 'templates'
_NAMES = ('system', 'priming', 'user', 'rejection', 'targeted')


def read(version: str) -> dict[str, str]:
  """Reads the parts of a version.

  Args:
    version: a folder in `TEMPLATES`.

  Returns:
    Name of a part -> its text, without the line break at its end.

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
    for name in _NAMES
  }


def digest(parts: Mapping[str, str]) -> str:
  """Returns a hash of all parts, 16 hex digits."""
  found = hashlib.sha256()
  for name, text in parts.items():
    found.update(f'{name}\n{text}\n'.encode())
  return found.hexdigest()[:16]
