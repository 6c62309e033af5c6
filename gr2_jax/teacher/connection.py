"""One request to a server and its outcome, in words without the key."""

import datetime
import email.utils
import ipaddress
import logging as stdlib_logging
import math
import os
import urllib.parse

import anyio
import httpx2
import openai
from absl import logging

from gr2_jax.teacher import config as teacher_config
from gr2_jax.teacher import protocol

KEY = 'GR2_TEACHER_API_KEY'
# Local servers want none, but the client library sends one.
_NO_KEY = 'none'
# Shorter keys are the "EMPTY" of local servers, and words of answers.
_SECRET = 8
_MOST_WORDS = 600
# At DEBUG these write headers into the log.
_LIBRARIES = ('openai', 'httpx2', 'httpcore2')
# Statuses that a later try may change; so may all from 500 on.
_PASSING = (408, 409, 425, 429)


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


class Connection:
  """How one model on one server is reached."""

  def __init__(self, cfg: teacher_config.EndpointConfig, model: str, key: Key):
    """Keeps what every request needs."""
    self._cfg = cfg
    self._model = model
    self._key = key
    for name in _LIBRARIES:
      stdlib_logging.getLogger(name).setLevel(stdlib_logging.WARNING)

  def open(self) -> openai.AsyncOpenAI:
    """Returns connections, as a context, for one event loop."""
    return openai.AsyncOpenAI(
      base_url=self._cfg.url,
      api_key=self._key.reveal(),
      timeout=self._cfg.timeout,
      max_retries=0,
    )

  async def send(
    self,
    client: openai.AsyncOpenAI,
    prompt: protocol.Prompt,
    dialect: protocol.Dialect,
  ) -> protocol.Reply:
    """Makes one request.

    Args:
      client: of `open`.
      prompt: what to ask.
      dialect: in which words.

    Returns:
      The reply.

    Raises:
      protocol.Fault: it failed, but may succeed when it is made again.
      protocol.Refused: the server turned it down.
      protocol.EndpointError: another model answered.
    """
    try:
      with anyio.fail_after(self._cfg.timeout):
        body = await self._read(client, prompt, dialect)
    except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
      raise protocol.Fault(
        f'no whole answer within {self._cfg.timeout:g} s (endpoint.timeout)'
      ) from None
    except openai.APIStatusError as error:
      return self._status(error)
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
      cause = error.__cause__ or error
      raise protocol.Fault(
        f'no connection ({type(cause).__name__}: {self._key.quote(cause)})'
      ) from None
    try:
      found = protocol.read_reply(self._key.hide(body))
    except protocol.Fault as fault:
      raise protocol.Fault(self._key.quote(fault)) from None
    if not protocol.is_from(found, self._model, self._cfg.replies_as):
      raise protocol.EndpointError(
        f'{self._cfg.url} was asked for the model {self._model!r} and answered '
        f'as {self._key.quote(found.model)!r}. If that is the same model, set '
        'endpoint.replies_as to this name; else correct traces.model or the '
        'server.'
      )
    return found

  async def _read(
    self,
    client: openai.AsyncOpenAI,
    prompt: protocol.Prompt,
    dialect: protocol.Dialect,
  ) -> bytes:
    """Reads an answer, of which only so much is held as an answer may have."""
    body = bytearray()
    async with client.chat.completions.with_streaming_response.create(
      model=self._model,
      messages=[dict(message) for message in prompt.messages],
      temperature=prompt.temperature,
      top_p=prompt.top_p,
      seed=prompt.seed,
      **dialect.fields(prompt),
    ) as response:
      async for chunk in response.iter_bytes():
        body += chunk
        if len(body) > protocol.MOST_BYTES:
          raise protocol.Fault(f'an answer of over {protocol.MOST_BYTES} bytes')
    return bytes(body)

  def _status(self, error: openai.APIStatusError) -> protocol.Reply:
    """Raises what an error status means; a filtered prompt is a reply."""
    message = self._key.quote(error.body or error.message)
    if passes(error.status_code):
      asked = error.response.headers.get('retry-after')
      now = datetime.datetime.now(datetime.UTC)
      raise protocol.Fault(
        f'status {error.status_code}: {message}',
        retry_after(asked, now),
      ) from None
    if error.code == 'content_filter':
      return protocol.Reply(self._model, '', protocol.REFUSED, 0, 0)
    raise protocol.Refused(error.status_code, message) from None


def passes(status: int) -> bool:
  """Returns whether a later try may bring another status than this one."""
  return status in _PASSING or status >= 500


def retry_after(value: str | None, now: datetime.datetime) -> float:
  """Reads a Retry-After header.

  Args:
    value: seconds, or a date of HTTP; None where there is no such header.
    now: the present, with its time zone.

  Returns:
    Seconds from now, 0 or more; 0 for what cannot be read.
  """
  if value is None:
    return 0.0
  try:
    seconds = float(value)
  except ValueError:
    try:
      date = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
      return 0.0
    if date.tzinfo is None:
      date = date.replace(tzinfo=datetime.UTC)
    seconds = (date - now).total_seconds()
  return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def check_url(url: str, has_key: bool) -> None:
  """Checks an address before anything is sent to it.

  A key that would go over the network unencrypted is a warning.

  Args:
    url: such as 'http://127.0.0.1:8000/v1'.
    has_key: whether a key goes with every request.

  Raises:
    ValueError: not an address, or one with a secret in it.
  """
  split = urllib.parse.urlsplit(url)
  if split.username or split.password or split.query or split.fragment:
    raise ValueError(
      'endpoint.url holds a user, a password, "?" or "#": give the bare '
      f'address (it is kept in config.json), and the key by {KEY}.'
    )
  if split.scheme not in ('http', 'https') or not split.hostname:
    raise ValueError(
      f"endpoint.url is {url!r}: give the address of a server of OpenAI's chat "
      'completions, such as http://127.0.0.1:8000/v1.'
    )
  if has_key and split.scheme == 'http' and not _is_loopback(split.hostname):
    logging.warning(
      'The key of %s goes to %s unencrypted: use https where the network is '
      'not your own.',
      KEY,
      split.hostname,
    )


def _is_loopback(host: str) -> bool:
  if host == 'localhost' or host.endswith('.localhost'):
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
