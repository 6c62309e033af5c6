"""Chat templates: messages -> the text on which a model was tuned.

A template is a Jinja program that comes with the model. It is run in a sandbox
and by the conventions of transformers (`apply_chat_template`), except that the
date is fixed, so that the same request has the same text on every day. It gets
`enable_thinking=False`.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, ext, nodes, sandbox
from jinja2 import parser as parser_lib

# The day that Llama 3's templates name where they are told none.
_TODAY = datetime.date(2024, 7, 26)


class _Generation(ext.Extension):
  """Reads `{% generation %}` (it marks what is trained on) as its content."""

  tags = {'generation'}

  def parse(self, parser: parser_lib.Parser) -> list[nodes.Node]:
    next(parser.stream)
    return parser.parse_statements(('name:endgeneration',), drop_needle=True)


class ChatTemplate:
  """One template, for messages that a model is to answer."""

  def __init__(
    self, source: str | Sequence[Mapping], special: Mapping[str, str], name: str
  ):
    """Compiles a template.

    Args:
      source: the template, or several with their names, of which 'default' is
        taken.
      special: texts of special tokens, as templates call them: 'bos_token', ...
      name: whose it is, for errors.

    Raises:
      ValueError: it is no Jinja, or none of several is the default one.
    """
    self._name, self._special = name, dict(special)
    if not isinstance(source, str):
      named = {entry['name']: entry['template'] for entry in source}
      if 'default' not in named:
        raise ValueError(
          f'{name} has the chat templates {sorted(named)} and none called '
          "'default': name the one to be used so."
        )
      source = named['default']
    environment = sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, ext.loopcontrols],
    )
    environment.filters['tojson'] = _to_json
    environment.globals |= {
      'raise_exception': _raise,
      'strftime_now': _TODAY.strftime,
    }
    try:
      self._template = environment.from_string(source)
    except TemplateError as error:
      raise ValueError(
        f'The chat template of {name} is no Jinja that can be read: {error}. '
        'Fetch the model again.'
      ) from error

  def render(self, messages: Sequence[Mapping[str, str]]) -> str:
    """Writes messages, up to where the answer begins.

    Args:
      messages: [{'role': ..., 'content': ...}, ...].

    Returns:
      The text, with the special tokens in it; where the template can, it asks
      for an answer without thinking aloud.

    Raises:
      ValueError: the template refuses these messages, or fails.
    """
    try:
      return self._template.render(
        messages=list(messages),
        tools=None,
        documents=None,
        add_generation_prompt=True,
        enable_thinking=False,
        **self._special,
      )
    except Exception as error:  # A program of others may fail in any way.
      roles = [message['role'] for message in messages]
      raise ValueError(
        f'The chat template of {self._name} refuses messages of the roles '
        f'{roles}: {error}. Use a model whose template takes them.'
      ) from error


def _raise(message: str) -> None:
  raise TemplateError(message)


def _to_json(value: Any, **settings: Any) -> str:
  # Jinja's own escapes HTML.
  return json.dumps(value, **{'ensure_ascii': False, **settings})
