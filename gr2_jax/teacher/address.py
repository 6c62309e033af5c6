"""The address of a server and its key."""

import ipaddress
import os
import types
import urllib.parse

from absl import logging

KEY = 'GR2_TEACHER_API_KEY'
# Local servers want none, but the client library sends one.
_NO_KEY = 'none'
# Shorter keys are the "EMPTY" of local servers, and words of answers.
_SECRET = 8
_MOST_WORDS = 600


class Key:
  """The key of the environment; never shown."""

  def __init__(self):
    """Reads it.

    Raises:
      ValueError: it has characters that no header can have.
    """
    self._value = os.environ.get(KEY, '').strip()
    if not all('!' <= char <= '~' for char in self._value):
      raise ValueError(
        f'The environment variable {KEY} holds spaces, line breaks or other '
        'characters that no key has: set it again (it is not shown here).'
      )

  def __bool__(self) -> bool:
    """Returns whether there is one."""
    return bool(self._value)

  def reveal(self) -> str:
    """Returns it, or a word in its place, for the client library alone."""
    return self._value or _NO_KEY

  def hide(self, body: bytes) -> bytes:
    """Returns what a server sent without the key, should it echo it."""
    if len(self._value) < _SECRET:
      return body
    return body.replace(self._value.encode(), b'[key]')

  def quote(self, words: object) -> str:
    """Returns words of others for a message: one short line, no key."""
    text = str(words)
    if self._value:
      text = text.replace(self._value, '[key]')
    text = ' '.join(
      ''.join(c if c.isprintable() else ' ' for c in text[:10_000]).split()
    )
    return text if len(text) <= _MOST_WORDS else f'{text[:_MOST_WORDS]} ...'


def library() -> types.ModuleType:
  """Returns the module `client`, which needs the client library.

  Raises:
    ModuleNotFoundError: it is not installed.
  """
  try:
    from gr2_jax.teacher import client as found
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'To ask a server takes the package {error.name}: run '
      '`.venv/bin/pip install -r launch/teacher_requirements.txt`.'
    ) from error
  return found


def check(url: str, has_key: bool) -> None:
  """Checks an address before anything is sent to it.

  A key that would go over the network unencrypted is a warning.

  Args:
    url: such as 'http://127.0.0.1:8000/v1'.
    has_key: whether a key goes with every request.

  Raises:
    ValueError: not an address, or one with a secret in it.
  """
  parts = urllib.parse.urlsplit(url)
  if parts.username or parts.password or parts.query or parts.fragment:
    raise ValueError(
      'endpoint.url holds a user, a password, "?" or "#": give the bare '
      f'address (it is kept in config.json), and the key by {KEY}.'
    )
  if parts.scheme not in ('http', 'https') or not parts.hostname:
    raise ValueError(
      f"endpoint.url is {url!r}: give the address of a server of OpenAI's chat "
      'completions, such as http://127.0.0.1:8000/v1.'
    )
  if has_key and parts.scheme == 'http' and not _is_loopback(parts.hostname):
    logging.warning(
      'The key of %s goes to %s unencrypted: use https where the network is '
      'not your own.',
      KEY,
      parts.hostname,
    )


def _is_loopback(host: str) -> bool:
  if host == 'localhost' or host.endswith('.localhost'):
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
