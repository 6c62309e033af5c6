"""Files of a Hugging Face tokenizer: `tokenizer.json` and what lies beside it.

One reader for foreign tokenizers: text pieces of a model that is trained on,
the chat tokenizer of a teacher, a sentence encoder.
"""

import json
import pathlib
from collections.abc import Mapping

import tokenizers

from gr2_jax import files

_NAME, _CONFIG = 'tokenizer.json', 'tokenizer_config.json'
# What other libraries read in its place.
_OTHERS = ('tokenizer.model', 'vocab.json', 'merges.txt', 'vocab.txt')


def read(directory: pathlib.Path) -> tokenizers.Tokenizer:
  """Reads the tokenizer of a checkpoint.

  Args:
    directory: of the checkpoint.

  Returns:
    The tokenizer, as its makers use it.

  Raises:
    FileNotFoundError: there is no `tokenizer.json`.
    ValueError: it is a pointer of git-lfs, damaged, of a kind that the library
      does not know, or its ids are not those that the library gives.
  """
  path = directory / _NAME
  if not path.is_file():
    raise FileNotFoundError(_missing(path))
  raw = files.read_object(path)
  try:
    tokenizer = from_spec(raw)
  except ValueError as error:
    raise ValueError(
      f'{path} is no tokenizer that can be read ({error}): fetch it again, or '
      'save it again with the present version of its library.'
    ) from error
  for entry in raw.get('added_tokens') or []:
    # The library numbers added tokens in order and ignores the file's ids.
    found = tokenizer.token_to_id(entry['content'])
    if found != entry['id']:
      raise ValueError(
        f'{path} gives {entry["content"]!r} the id {entry["id"]}, but the ids '
        f'before it leave a gap and it becomes {found}: fetch the file again, '
        'or fill the gap.'
      )
  return tokenizer


def from_spec(spec: Mapping) -> tokenizers.Tokenizer:
  """Makes a tokenizer of the content of a `tokenizer.json`.

  Raises:
    ValueError: the library cannot read it.
  """
  text = json.dumps(spec)
  try:
    return tokenizers.Tokenizer.from_str(text)
  # The library raises no narrower class; and where its Rust panics, a class
  # that is no Exception and has no name to import.
  except BaseException as error:
    panic = type(error).__name__ == 'PanicException'
    if not isinstance(error, Exception) and not panic:
      raise
    raise ValueError(str(error)) from error


def size(tokenizer: tokenizers.Tokenizer) -> int:
  """Returns how many rows its ids ask for: one more than the highest id."""
  vocab = tokenizer.get_vocab(with_added_tokens=True)
  return max(vocab.values(), default=-1) + 1


class Config:
  """What `tokenizer_config.json` and `chat_template.jinja` say, if there.

  Attributes:
    path: of the former.
  """

  def __init__(self, directory: pathlib.Path):
    """Reads them; ValueError where one cannot be read."""
    self.path = directory / _CONFIG
    self._raw = files.read_object(self.path) if self.path.exists() else {}
    jinja, source = directory / 'chat_template.jinja', self.path
    template = self._raw.get('chat_template')
    if jinja.exists():
      files.check_fetched(jinja)
      source = jinja
      try:
        template = jinja.read_text(encoding='utf-8')
      except UnicodeDecodeError as error:
        raise ValueError(
          f'{jinja} is not UTF-8 ({error}): fetch it again.'
        ) from error
    self._template = _template(template, source)

  @property
  def template(self) -> str | list | None:
    """The chat template, a list of several with their names, or None."""
    return self._template

  def token(self, key: str) -> str | None:
    """Returns the name of a special token, such as that of 'eos_token'.

    Raises:
      ValueError: it is neither a name nor an object with its `content`.
    """
    token = self._raw.get(key)
    name = token.get('content') if isinstance(token, dict) else token
    if token is None or isinstance(name, str):
      return _written(name, key, self.path) or None
    raise ValueError(
      f'{self.path}: {key} is {token!r}, not the name of a token: fetch the '
      'file again.'
    )


def _template(found: object, source: pathlib.Path) -> str | list | None:
  """Checks what stands in the place of a chat template."""
  if found is None or isinstance(found, str):
    return _written(found, 'chat_template', source)
  named = isinstance(found, list) and all(
    isinstance(entry, dict)
    and isinstance(entry.get('name'), str)
    and isinstance(entry.get('template'), str)
    for entry in found
  )
  if not named:
    raise ValueError(
      f'{source}: chat_template is a {type(found).__name__}, neither a text '
      'nor a list of {name, template}: fetch the file again.'
    )
  return found


def _written(value: str | None, key: str, source: pathlib.Path) -> str | None:
  """Returns a text; a ValueError where no file could hold it."""
  try:
    (value or '').encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f'{source}: {key} holds half a character (a lone surrogate) at place '
      f'{error.start + 1}: fetch the file again.'
    ) from error
  return value


def _missing(path: pathlib.Path) -> str:
  """Returns what to do without the file."""
  others = [name for name in _OTHERS if (path.parent / name).is_file()]
  remedy = 'give the directory of a Hugging Face model with its tokenizer.'
  if others:
    remedy = (
      f'of {others} alone no tokenizer is made here. Write it with '
      "transformers: AutoTokenizer.from_pretrained('DIRECTORY')"
      ".save_pretrained('DIRECTORY')."
    )
  return f'{path} is missing: {remedy}'
