"""What goes wrong between a run and a server, and how long to wait then.

A `Fault` may pass: a time-out, a dropped connection, a broken answer, a server
that is busy. What is `Refused` stays refused and ends the run.
"""

import datetime
import email.utils
import math
import random
import re

# Statuses that a later try may change; so may all from 500 on.
_PASSING = (408, 409, 425, 429)
# Longest pause between two tries, and the longest that a server may ask for.
LONGEST_PAUSE = 60.0
LONGEST_ASKED = 300.0

_TOO_LONG = re.compile(
  r'context|too long|too large|maximum.{0,20}(length|token)'
)


class Fault(Exception):
  """A request that failed but may succeed when it is made again.

  Attributes:
    wait: seconds that the server asked to wait; 0 where it did not.
  """

  def __init__(self, message: str, wait: float = 0.0):
    """Keeps what happened, in words without secrets."""
    super().__init__(message)
    self.wait = wait


class Refused(Exception):
  """A request that the server refused; asking again would not help.

  Attributes:
    status: the HTTP status.
    message: what the server said, without secrets.
  """

  def __init__(self, status: int, message: str):
    """Keeps the server's words."""
    super().__init__(f'{status}: {message}')
    self.status = status
    self.message = message


class EndpointError(RuntimeError):
  """A server does not do what the run needs; the message has the remedy."""


def passes(status: int) -> bool:
  """Returns whether a later try may bring another status than this one."""
  return status in _PASSING or status >= 500


def pause(failures: int, first: float, asked: float) -> float:
  """Returns how long to wait before the next try.

  Args:
    failures: how often the request has failed, 1 or more.
    first: seconds after the first failure; doubled with each further one, up to
      LONGEST_PAUSE.
    asked: seconds that the server asked for; never undercut up to
      LONGEST_ASKED.

  Returns:
    Seconds, with jitter, so that requests which failed together do not come
    back together.
  """
  longest = min(first * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE)
  jittered = random.uniform(longest / 2, longest)
  return max(jittered, min(asked, LONGEST_ASKED))


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


def remedy(refused: Refused, model: str) -> str:
  """Returns what a user can do about a request that a model refused."""
  message = refused.message.lower()
  if refused.status in (401, 403):
    return 'Put a valid key into the environment variable GR2_TEACHER_API_KEY.'
  if _TOO_LONG.search(message):
    return (
      'The prompt and the answer do not fit into its context: lower '
      'traces.prompt.history_items or traces.sampling.max_tokens, or serve the '
      'model with a longer context.'
    )
  named = re.search(rf'[\'"`]{re.escape(model.lower())}\\?[\'"`]', message)
  if refused.status == 404 or 'model' in message or named:
    return (
      'Correct traces.model (GET endpoint.url + "/models" lists what is served)'
      ' or endpoint.url (it mostly ends in /v1).'
    )
  return 'Correct what it names, in the sections traces and endpoint.'
