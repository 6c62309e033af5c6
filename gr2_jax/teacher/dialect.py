"""One request of a chat, in the words that a server understands."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax.teacher import faults

_RENAMED = 'max_completion_tokens'


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One request.

  Attributes:
    messages: the conversation, `role` and `content` each.
    temperature: of sampling.
    top_p: of sampling.
    max_tokens: longest answer.
    seed: for servers that sample by one.
    schema: JSON schema of the answer, or None.
  """

  messages: Sequence[Mapping[str, str]]
  temperature: float
  top_p: float
  max_tokens: int
  seed: int
  schema: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Dialect:
  """What a server was found to understand.

  Attributes:
    schema: whether `response_format` is sent.
    limit: what the longest answer is called; some hosts know the new name only.
  """

  schema: bool
  limit: str = 'max_tokens'

  def fields(self, prompt: Prompt) -> dict[str, Any]:
    """Returns the part of a request that depends on the dialect."""
    fields: dict[str, Any] = {self.limit: prompt.max_tokens}
    if self.schema and prompt.schema is not None:
      answer = {'name': 'answer', 'strict': True, 'schema': dict(prompt.schema)}
      fields['response_format'] = {'type': 'json_schema', 'json_schema': answer}
    return fields

  def after(
    self, refused: faults.Refused, prompt: Prompt, insists: bool
  ) -> 'Dialect | None':
    """Returns what to try when a request was refused; None for nothing."""
    if refused.status not in (400, 422):
      return None
    if self.limit != _RENAMED and _RENAMED in refused.message:
      return dataclasses.replace(self, limit=_RENAMED)
    if self.schema and prompt.schema is not None and not insists:
      return dataclasses.replace(self, schema=False)
    return None

  def renames(self, other: 'Dialect') -> bool:
    """Returns whether `other` alone has the new name of the limit."""
    return self.limit != _RENAMED and other.limit == _RENAMED

  def simplest(self, other: 'Dialect') -> 'Dialect':
    """Returns what both understand."""
    limit = other.limit if self.renames(other) else self.limit
    return Dialect(self.schema and other.schema, limit)
