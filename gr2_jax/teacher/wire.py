"""One request to a server and what became of it, in words without the key."""

import datetime
import logging

import anyio
import httpx2
import openai

from gr2_jax.teacher import address, faults, reply
from gr2_jax.teacher import config as teacher_config
from gr2_jax.teacher import dialect as dialect_lib

# At DEBUG these write headers into the log.
_LIBRARIES = ('openai', 'httpx2', 'httpcore2')


class Wire:
  """The connection to one model on one server."""

  def __init__(
    self, cfg: teacher_config.EndpointConfig, model: str, key: address.Key
  ):
    """Keeps what every request needs."""
    self._cfg = cfg
    self._model = model
    self._key = key
    for name in _LIBRARIES:
      logging.getLogger(name).setLevel(logging.WARNING)

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
    prompt: dialect_lib.Prompt,
    dialect: dialect_lib.Dialect,
  ) -> reply.Reply:
    """Makes one request.

    Args:
      client: of `open`.
      prompt: what to ask.
      dialect: in which words.

    Returns:
      The reply.

    Raises:
      faults.Fault: it failed, but may succeed when it is made again.
      faults.Refused: the server turned it down.
      faults.EndpointError: another model answered.
    """
    try:
      with anyio.fail_after(self._cfg.timeout):
        body = await self._read(client, prompt, dialect)
    except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException):
      raise faults.Fault(
        f'no whole answer within {self._cfg.timeout:g} s (endpoint.timeout)'
      ) from None
    except openai.APIStatusError as error:
      return self._status(error)
    except (openai.APIConnectionError, httpx2.HTTPError) as error:
      cause = error.__cause__ or error
      raise faults.Fault(
        f'no connection ({type(cause).__name__}: {self._key.quote(cause)})'
      ) from None
    try:
      found = reply.read(self._key.hide(body))
    except faults.Fault as fault:
      raise faults.Fault(self._key.quote(fault)) from None
    if not reply.is_from(found, self._model, self._cfg.replies_as):
      raise faults.EndpointError(
        f'{self._cfg.url} was asked for the model {self._model!r} and answered '
        f'as {self._key.quote(found.model)!r}. If that is the same model, set '
        'endpoint.replies_as to this name; else correct traces.model or the '
        'server.'
      )
    return found

  async def _read(
    self,
    client: openai.AsyncOpenAI,
    prompt: dialect_lib.Prompt,
    dialect: dialect_lib.Dialect,
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
        if len(body) > reply.MOST_BYTES:
          raise faults.Fault(f'an answer of over {reply.MOST_BYTES} bytes')
    return bytes(body)

  def _status(self, error: openai.APIStatusError) -> reply.Reply:
    """Raises what an error status means; a filtered prompt is a reply."""
    message = self._key.quote(error.body or error.message)
    if faults.passes(error.status_code):
      asked = error.response.headers.get('retry-after')
      now = datetime.datetime.now(datetime.UTC)
      raise faults.Fault(
        f'status {error.status_code}: {message}',
        faults.retry_after(asked, now),
      ) from None
    if error.code == 'content_filter':
      return reply.Reply(self._model, '', reply.REFUSED, 0, 0)
    raise faults.Refused(error.status_code, message) from None
