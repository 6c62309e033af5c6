"""Text as pieces: what a vocabulary asks of them, and those trained here.

The pieces trained here are SentencePiece's; every text round trips exactly.
"""

import io
import pathlib
from collections.abc import Iterable
from typing import Protocol

import sentencepiece

from gr2_jax import files

PAD, BOS, EOS, UNK = 0, 1, 2, 3

# SentencePiece writes a space as this character, so the character itself goes
# by its bytes.
SPACE = '\u2581'
_FILE = 'text.model'


class TextPieces(Protocol):
  """What a vocabulary is built on: `Pieces`, or `pretrained.Pretrained`.

  Attributes:
    kind: name of the class in `vocab.json`.
    size: number of pieces; ids are 0..size-1.
    bytes: the bytes of each piece; none for those that are no text.
    pad: id that fills rows up.
    bos: id that begins a text.
    eos: id that ends a text; `pad` and `bos` may be the same id.
  """

  kind: str
  size: int
  bytes: list[bytes]
  pad: int
  bos: int
  eos: int

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, all of them pieces of text."""
    ...

  def save(self, directory: pathlib.Path) -> None:
    """Writes the pieces into a directory."""
    ...

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'TextPieces':
    """Reads what `save` wrote."""
    ...


class Pieces:
  """A trained SentencePiece model with byte fallback.

  Attributes:
    model: the serialized model.
    size: number of pieces; ids are 0..size-1, the first four are control ids.
    bytes: the bytes of each piece; none for padding, begin and end.
    pad: id of padding.
    bos: id of begin.
    eos: id of end.
  """

  kind = 'sentencepiece'
  pad, bos, eos = PAD, BOS, EOS

  def __init__(self, model: bytes):
    """Loads a model that `train` made."""
    self.model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.size = self._processor.get_piece_size()
    self.bytes = [self._bytes_of(i) for i in range(self.size)]
    byte_ids = {
      self.bytes[i]: i for i in range(self.size) if self._processor.is_byte(i)
    }
    self._space_ids = [byte_ids[bytes([b])] for b in SPACE.encode()]

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text: their bytes, joined, are the text's.

    Raises:
      ValueError: the text holds a lone surrogate, which no encoding can write.
    """
    check_text(text)
    ids = []
    for i, part in enumerate(text.split(SPACE)):
      if i:
        ids += self._space_ids
      if part:
        ids += self._processor.encode(part)
    return ids

  def save(self, directory: pathlib.Path) -> None:
    """Writes `text.model` into a directory."""
    files.atomic_write(directory / _FILE, self.model)

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'Pieces':
    """Reads what `save` wrote; ValueError where it is damaged."""
    path = directory / _FILE
    try:
      return cls(path.read_bytes())
    except (RuntimeError, KeyError, ValueError) as error:
      raise ValueError(
        f'{path} holds no text pieces that can be read ({error!r}): copy the '
        'run again.'
      ) from error

  def _bytes_of(self, token: int) -> bytes:
    if self._processor.is_control(token):
      return b''
    if self._processor.is_unknown(token):
      return '\ufffd'.encode()
    piece = self._processor.id_to_piece(token)
    if self._processor.is_byte(token):
      return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE, ' ').encode()


def check_text(text: str) -> None:
  """Refuses a text with a lone surrogate, which no encoding can write."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise ValueError(
      f'Text {text!r} has a lone surrogate: fix its encoding.'
    ) from error


def train(lines: Iterable[str], size: int) -> Pieces:
  """Trains pieces by byte-pair encoding.

  The result depends on the lines and their order only: one thread. Pieces may
  hold digits and punctuation beside letters, so that `(1995)` or `Drama.` is
  one token: on MovieLens titles that saves a tenth of the tokens.

  Args:
    lines: texts of the corpus.
    size: number of pieces, control ids and bytes included; fewer where the
      corpus has no more.

  Returns:
    The pieces.

  Raises:
    ValueError: `size` is too small for the corpus.
  """
  stream = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=stream,
      vocab_size=size,
      hard_vocab_limit=False,
      model_type='bpe',
      byte_fallback=True,
      character_coverage=0.9999,
      normalization_rule_name='identity',
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      split_by_unicode_script=False,
      split_by_number=False,
      max_sentence_length=1 << 20,
      pad_id=PAD,
      bos_id=BOS,
      eos_id=EOS,
      unk_id=UNK,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    raise ValueError(
      f'A vocabulary of {size} text pieces cannot be trained on this corpus '
      f'({error}): raise text_size to at least 260 plus the number of '
      'characters.'
    ) from error
  return Pieces(stream.getvalue())
