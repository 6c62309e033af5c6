"""What a request to re-rank is. Nothing here needs JAX."""

import dataclasses

from gr2_jax.data import fields


class Refused(Exception):
  """A request that gets no answer.

  Attributes:
    status: of HTTP, 4xx or 5xx.
    kind: a word for programs.
    message: for people: what is wrong, and the remedy.
    headers: of the response.
  """

  def __init__(
    self, status: int, kind: str, message: str, headers: dict | None = None
  ):
    """Describes the refusal; see the attributes."""
    super().__init__(message)
    self.status, self.kind, self.message = status, kind, message
    self.headers = headers or {}


@dataclasses.dataclass(frozen=True)
class Limits:
  """How large a request may be; our choices.

  Attributes:
    body: bytes.
    depth: of objects and lists inside each other.
    inputs: lists of one request.
    candidates: of one list; the model says how many.
    history: items of one history.
    text: characters of an id or a text.
    items: new items of one request.
    body_seconds: how long a body may take to arrive.
  """

  body: int = 1 << 20
  depth: int = 12
  inputs: int = 64
  candidates: int = 100
  history: int = 1000
  text: int = 4096
  items: int = 1000
  body_seconds: float = 10.0


@dataclasses.dataclass(frozen=True)
class Input:
  """One list of a request.

  Attributes:
    record: as `rerank.rank_each` reads it.
    where: what to call it in errors.
    error: why it is not asked; empty if it is.
    texts: of documents, by the ids that they got here.
  """

  record: dict
  where: str
  error: str = ''
  texts: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Request:
  """A request.

  Attributes:
    inputs: its lists, one or more.
    many: whether it gave `inputs`, and not one list.
    model: the name that it gave, or None.
    top_n: results of an answer; None for all.
    explain: whether an explanation is wanted.
    stream: whether the answer comes as events.
    return_documents: whether results have their titles or texts.
    timeout_ms: when it will wait no longer; None for the server's.
    probabilities: whether scores lie within 0 and 1, as in Cohere's spelling.
  """

  inputs: list[Input]
  many: bool = False
  model: str | None = None
  top_n: int | None = None
  explain: bool = False
  stream: bool = False
  return_documents: bool = False
  timeout_ms: int | None = None
  probabilities: bool = False


def refuse(message: str) -> Refused:
  """Returns the refusal of a request that is wrong (400)."""
  return Refused(400, 'invalid_request', message)


def problem(given: Input) -> str:
  """Says why a list has no incoming order; empty if it has one.

  Args:
    given: the list.
  """
  ids = given.record.get('candidates')
  if not isinstance(ids, list) or not all(isinstance(x, str) for x in ids):
    return f"{given.where}: 'candidates' must be a list of item ids (strings)."
  twice = fields.repeated(ids)
  if twice is None:
    return ''
  shown = fields.shown(twice)
  return f'{given.where}: the candidate {shown} stands twice; give it once.'
