"""The tokenizer of a pretrained LLM as text pieces of a vocabulary.

GR2 starts from a pretrained LLM [P], whose embedding rows belong to the ids of
its own tokenizer, a Hugging Face `tokenizer.json`. `bpe.py` lists those that
are read.
"""

import json
import pathlib
from collections.abc import Mapping

import tokenizers

from gr2_jax import files
from gr2_jax.text import bpe, pieces, tokenizer_files

# What families without a begin token (Qwen) put between documents.
SEPARATOR = '<|endoftext|>'
_FILE = 'text.json'
# A row of the token table belongs to each id; no published model has more.
MOST_IDS = 2**24


class Pretrained:
  """A pretrained tokenizer that reads texts as nothing but text.

  Its control pieces are those of `bpe.control`, and `bos`, `eos` and `pad`.
  They have no bytes, and no text is encoded to one, even where it spells it.

  A byte-level tokenizer with NFC (Qwen) writes the NFC form of a text, and
  characters with bytes that it has no piece for (`bpe.lost`) become U+FFFD; all
  others are written exactly. The space that Llama 2's puts in front of a
  text is left out (`bpe.exact`).

  Attributes:
    size: number of ids, those of the added tokens included. An id without a
      token, which some files have, counts and has no bytes.
    bytes: the bytes of each piece.
    bos: id that begins a text.
    eos: id that ends a text.
    pad: id that fills rows up; it may be `eos`, since every mask of this
      package is made of lengths and never of `token != pad`.
  """

  kind = 'pretrained'

  def __init__(
    self,
    tokenizer: tokenizers.Tokenizer,
    eos: str,
    bos: str | None = None,
    pad: str | None = None,
    chat_template: str | list | None = None,
  ):
    """Takes a tokenizer over.

    Args:
      tokenizer: the tokenizer; it is not changed.
      eos: the token that ends a text.
      bos: the token that begins a text. Qwen has none: then it is the token
        that stands between documents in pretraining, '<|endoftext|>', after
        which such a model expects a beginning.
      pad: the token that fills up; by default `eos`.
      chat_template: kept for `export`.

    Raises:
      ValueError: the tokenizer is of a kind that `bpe` does not read, has two
        tokens with one id or an absurd id, or lacks one of the tokens.
    """
    self._ids = tokenizer.get_vocab(with_added_tokens=True)
    spec = json.loads(tokenizer.to_str())
    names = {}
    for name, token in self._ids.items():
      if names.setdefault(token, name) != name:
        raise ValueError(
          f'The tokenizer gives id {token} to {names[token]!r} and {name!r}: '
          'its file is damaged, fetch it again.'
        )
    largest = max(names, default=0)
    if largest >= MOST_IDS:
      raise ValueError(
        f'The tokenizer gives {names[largest]!r} the id {largest}, and no '
        f'model has {MOST_IDS} rows for its ids: its file is damaged, fetch '
        'it again.'
      )
    self._spec, self._exact = spec, bpe.exact(spec)
    tokens = {'bos': bos or SEPARATOR, 'eos': eos, 'pad': pad or eos}
    self._tokens, self._template = tokens, chat_template
    self.bos, self.eos, self.pad = (self._id(r, n) for r, n in tokens.items())
    self._byte_level = bpe.is_byte_level(spec)
    control = bpe.control(spec) | set(tokens.values())
    self.size = largest + 1
    self.bytes = [b''] * self.size
    for token, name in names.items():
      if name not in control:
        self.bytes[token] = bpe.piece_bytes(name, self._byte_level)
    plain = bpe.plain(self._exact, control)
    self._lost = bpe.lost(plain)
    self._encoder = tokenizer_files.from_spec(plain)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text; none of them is a control piece.

    Args:
      text: any text.

    Returns:
      Ids whose bytes, joined, are the text's, but for NFC and lost bytes.

    Raises:
      ValueError: the text holds a lone surrogate, which no encoding can write.
    """
    pieces.check_text(text)
    if not self._lost.isdisjoint(text.encode()):
      text = ''.join(
        c if self._lost.isdisjoint(c.encode()) else '\ufffd' for c in text
      )
    if self._byte_level:
      return self._encoder.encode(text, add_special_tokens=False).ids
    # U+2581 stands for a space, so the character itself goes by its bytes.
    escape = [self._ids[bpe.byte_piece(b)] for b in pieces.SPACE.encode()]
    ids = []
    for i, part in enumerate(text.split(pieces.SPACE)):
      ids += escape if i else []
      ids += self._encoder.encode(part, add_special_tokens=False).ids
    return ids

  def save(self, directory: pathlib.Path) -> None:
    """Writes `text.json` into a directory."""
    content = {
      **self._tokens,
      'chat_template': self._template,
      'tokenizer': self._spec,
    }
    files.atomic_write(directory / _FILE, json.dumps(content) + '\n')

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'Pretrained':
    """Reads what `save` wrote; ValueError where it is damaged."""
    path = directory / _FILE
    content = files.read_object(path)
    try:
      return cls(tokenizer_files.from_spec(content.pop('tokenizer')), **content)
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        f'{path} holds no text pieces that can be read ({error!r}): copy the '
        'run again.'
      ) from error

  def with_added(self, added: Mapping[str, int]) -> tokenizers.Tokenizer:
    """Returns the tokenizer with added tokens.

    Unlike `encode` it finds all its added tokens wherever a text spells them.
    All of them stand among the pieces of the model too: there an id is taken
    as written, while the library numbers added tokens itself and gives one
    that the model knows as a piece ('"]}', say) the id of the piece. A piece
    that an added token takes the name of can stand in no text any more; its id
    keeps a placeholder, like the ids that never had a token.

    Args:
      added: ids of the added tokens by name, from `size` on.

    Returns:
      The tokenizer. Decoding leaves the added tokens in when it leaves special
      tokens out: an answer is made of them.
    """
    vocab = {**self._ids, **added}
    rows = max(self.size, *(token + 1 for token in added.values()))
    for token in set(range(rows)) - set(vocab.values()):
      vocab[f'<|gr2_unused_{token}|>'] = token
    plain = dict.fromkeys(('single_word', 'lstrip', 'rstrip'), False)
    plain |= {'normalized': False, 'special': False}
    entries = [
      entry
      for entry in self._exact['added_tokens']
      if entry['content'] not in added
    ]
    entries += [
      {'id': token, 'content': name, **plain} for name, token in added.items()
    ]
    return tokenizer_files.from_spec(
      {
        **self._exact,
        'model': {**self._exact['model'], 'vocab': vocab},
        'added_tokens': entries,
      }
    )

  def export(self, directory: pathlib.Path, added: Mapping[str, int]) -> None:
    """Writes what transformers' AutoTokenizer reads; see `Vocab.export`."""
    config = {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      **{f'{role}_token': name for role, name in self._tokens.items()},
      # It would take the space out of ' .' when decoding.
      'clean_up_tokenization_spaces': False,
    }
    if self._template is not None:
      config['chat_template'] = self._template
    directory.mkdir(parents=True, exist_ok=True)
    text = self.with_added(added).to_str()
    files.atomic_write(directory / 'tokenizer.json', text)
    files.write_json(directory / 'tokenizer_config.json', config)

  def _id(self, role: str, name: str) -> int:
    if name not in self._ids:
      raise ValueError(
        f'The tokenizer has no token {name!r} for {role}: pass {role}= the '
        'name of the token that its model uses.'
      )
    return self._ids[name]


def read(
  directory: pathlib.Path,
  eos: str | None = None,
  bos: str | None = None,
  pad: str | None = None,
) -> Pretrained:
  """Reads the tokenizer of a checkpoint's directory.

  Args:
    directory: holds `tokenizer.json` and, for the roles of its tokens,
      `tokenizer_config.json`; a chat template in the latter or in
      `chat_template.jinja` is kept.
    eos: another end token than the file's.
    bos: another begin token.
    pad: another padding token.

  Returns:
    The text pieces.

  Raises:
    FileNotFoundError: there is no `tokenizer.json`.
    ValueError: a file cannot be read (`tokenizer_files`), the tokenizer cannot
      be used (see `Pretrained`), or no end token is known.
  """
  tokenizer = tokenizer_files.read(directory)
  config = tokenizer_files.Config(directory)
  given = {'eos': eos, 'bos': bos, 'pad': pad}
  roles = {
    role: name or config.token(f'{role}_token') for role, name in given.items()
  }
  if not roles['eos']:
    raise ValueError(f'{config.path} names no eos_token: add it, or pass eos=.')
  try:
    return Pretrained(tokenizer, **roles, chat_template=config.template)
  except ValueError as error:
    raise ValueError(f'{directory}: {error}') from error
