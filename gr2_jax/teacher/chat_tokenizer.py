"""From messages to the tokens of a local model, and back.

A chat template turns messages into the text on which a model was tuned. It is a
Jinja program that comes with the model. It is run in a sandbox and by the
conventions of transformers (`apply_chat_template`), except that the date is
fixed, so that the same request has the same text on every day. It gets
`enable_thinking=False`.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from jinja2 import TemplateError, ext, nodes, sandbox
from jinja2 import parser as parser_lib

from gr2_jax import files
from gr2_jax.lm import gguf
from gr2_jax.lm.gguf_file import File
from gr2_jax.text import tokenizer_files

_SPECIAL = ('bos_token', 'eos_token', 'pad_token', 'unk_token')
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
    # Jinja makes Python of it, which refuses some in ways of its own.
    except Exception as error:
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
      text = self._template.render(
        messages=list(messages),
        tools=None,
        documents=None,
        add_generation_prompt=True,
        enable_thinking=False,
        **self._special,
      )
      # Half a surrogate pair is no text.
      text.encode()
      return text
    except Exception as error:  # A program of others may fail in any way.
      roles = [message['role'] for message in messages]
      raise ValueError(
        f'The chat template of {self._name} refuses messages of the roles '
        f'{roles}: {error}. Use a model whose template takes them.'
      ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class ChatTokenizer:
  """Tokenizer and chat template of a model.

  Attributes:
    name: of the model's directory or file.
    tokenizer: of the model, as its makers use it: unlike a `Vocab` it finds
      special tokens where a text spells them, which a template does on purpose,
      and no title can (`catalogue.clean`).
    template: the chat template.
    ends: ids that end an answer.
  """

  name: str
  tokenizer: tokenizers.Tokenizer
  template: ChatTemplate
  ends: tuple[int, ...]

  def encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Returns the tokens of messages, up to where the answer begins."""
    text = self.template.render(messages)
    return self.tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    """Returns the text of an answer, without special tokens."""
    return self.tokenizer.decode(list(ids))


def read(path: pathlib.Path) -> ChatTokenizer:
  """Reads tokenizer and template of a checkpoint, and no tensor of it.

  Args:
    path: a Hugging Face directory, or a GGUF file.

  Returns:
    Both, and the end tokens.

  Raises:
    FileNotFoundError: a directory without `tokenizer.json`.
    ValueError: a file cannot be read, the model has no chat template, or no end
      token is known.
  """
  return _of_file(path) if path.is_file() else _of_directory(path)


def _of_directory(path: pathlib.Path) -> ChatTokenizer:
  tokenizer = tokenizer_files.read(path)
  config = tokenizer_files.Config(path)
  named = {key: config.token(key) for key in _SPECIAL}
  special = {key: name for key, name in named.items() if name}
  ends = [tokenizer.token_to_id(special.get('eos_token', ''))]
  for name in ('config.json', 'generation_config.json'):
    ends += _ends(path / name)
  where = 'chat_template in tokenizer_config.json, or chat_template.jinja'
  return _make(
    path, tokenizer, config.template, where=where, special=special, ends=ends
  )


def _ends(path: pathlib.Path) -> list[int | None]:
  """Reads eos_token_id: an id, several, or nothing."""
  found = files.read_object(path).get('eos_token_id') if path.exists() else None
  ends = found if isinstance(found, list) else [found]
  for end in ends:
    if end is not None and (not isinstance(end, int) or isinstance(end, bool)):
      raise ValueError(
        f'{path}: eos_token_id is {found!r}, not the id of a token: fetch the '
        'file again.'
      )
  return ends


def _of_file(path: pathlib.Path) -> ChatTokenizer:
  roles = gguf.roles(path)
  template = roles.pop('chat_template')
  special = {f'{role}_token': name for role, name in roles.items() if name}
  file = File(path)
  keys = ('eos', 'eot', 'eom')
  ends = [file.get(f'tokenizer.ggml.{key}_token_id', kind=int) for key in keys]
  where = 'the metadata key tokenizer.chat_template'
  tokenizer = gguf.read_tokenizer(path)
  return _make(
    path, tokenizer, template, where=where, special=special, ends=ends
  )


def _make(
  path: pathlib.Path,
  tokenizer: tokenizers.Tokenizer,
  template: str | list | None,
  *,
  where: str,
  special: Mapping[str, str],
  ends: Sequence[int | None],
) -> ChatTokenizer:
  if not template:
    raise ValueError(
      f'{path} has no chat template ({where}): it was not tuned to answer '
      'messages. Use its instruct variant, or add the template.'
    )
  known = tuple(dict.fromkeys(end for end in ends if end is not None))
  if not known:
    raise ValueError(
      f'{path} does not say which token ends an answer: add eos_token_id to '
      'generation_config.json, or convert the model again.'
    )
  size = tokenizer_files.size(tokenizer)
  beyond = [end for end in known if not 0 <= end < size]
  if beyond:
    raise ValueError(
      f'{path}: answers end with the tokens {beyond}, but the tokenizer has '
      f'only the ids up to {size - 1}: correct eos_token_id, or fetch the '
      'tokenizer that belongs to the model.'
    )
  # Files of models may ask for both.
  tokenizer.no_truncation()
  tokenizer.no_padding()
  template = ChatTemplate(template, special, str(path))
  return ChatTokenizer(path.name, tokenizer, template, known)


def _raise(message: str) -> None:
  raise TemplateError(message)


def _to_json(value: Any, **settings: Any) -> str:
  # Jinja's own escapes HTML.
  return json.dumps(value, **{'ensure_ascii': False, **settings})
