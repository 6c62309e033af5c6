"""Text pieces, added tokens and semantic-ID tokens in one vocabulary.

The text pieces are trained here (SentencePiece) or those of a pretrained LLM.
Ids, in this order: the text pieces (with the control ids among them),
`<|sid_begin|>` and `<|sid_end|>`, the five delimiters of an answer, the
task and role tokens, the L * C semantic-ID tokens, and unused rows up to a
multiple of 64. On a pretrained tokenizer the first added token follows its last
id, in a row that the checkpoint may already have as padding: readers of
`tokenizer.json` expect ids without a gap. The tokens of semantic IDs and their
wrappers are GR2's [P], the rest is our choice.
"""

import functools
import pathlib
import re
from collections.abc import Iterable
from typing import Literal

import numpy as np
import tokenizers

from gr2_jax import files
from gr2_jax.data import padding
from gr2_jax.text import answer, semantic_ids
from gr2_jax.text import pieces as pieces_lib
from gr2_jax.text import pretrained as pretrained_lib

# Rows of the embedding table are sharded: a multiple of 64 divides by any mesh.
ROW_MULTIPLE = 64

DELIMITERS = answer.DELIMITERS
TASKS = ('rerank', 'retrieve', 'describe', 'identify', 'persona', 'text')
ROLES = ('history', 'candidates', 'answer')

_KINDS: dict[str, type[pieces_lib.TextPieces]] = {
  kind.kind: kind for kind in (pieces_lib.Pieces, pretrained_lib.Pretrained)
}

_ADDED = re.compile(
  '('
  + '|'.join(re.escape(d) for d in sorted(DELIMITERS, key=len, reverse=True))
  + rf'|<\|[a-z_]+\|>|{semantic_ids.TOKEN})'
)


class Vocab:
  """Turns text into token ids and back, exactly.

  Attributes:
    pad: id that fills rows up.
    bos: id that begins every example.
    eos: id that ends an answer. With a pretrained tokenizer `pad` and `bos`
      may be the same id.
    text_size: number of text pieces; ids below it are text or control ids.
    sid_begin: id of `<|sid_begin|>`.
    sid_end: id of `<|sid_end|>`.
    sid_offset: id of `<s_a_0>`; level l, code c is `sid_offset + l * C + c`.
    levels: L.
    codes: C.
    size: V, number of rows of the embedding table, a multiple of 64.
  """

  def __init__(
    self,
    pieces: pieces_lib.TextPieces,
    levels: int,
    codes: int,
    min_rows: int = 0,
  ):
    """Adds tokens to text pieces.

    Args:
      pieces: the text pieces.
      levels: L, at most 26 (levels are lettered).
      codes: C, codes a level.
      min_rows: `size` is at least this.

    Raises:
      ValueError: more levels than letters, no level or code at all, or more
        rows than any model has.
    """
    if not 0 < levels <= semantic_ids.MAX_LEVELS or codes < 1:
      used = f'use 1 to {semantic_ids.MAX_LEVELS} levels, 1 code or more.'
      raise ValueError(f'{levels} levels, {codes} codes a semantic ID: {used}')
    rows = max(levels * codes, min_rows)
    if rows > pretrained_lib.MOST_IDS:
      raise ValueError(
        f'{rows} rows for tokens: a model has {pretrained_lib.MOST_IDS} at the '
        'most.'
      )
    self._pieces, self._min_rows = pieces, min_rows
    self.pad, self.bos, self.eos = pieces.pad, pieces.bos, pieces.eos
    self.levels, self.codes = levels, codes
    self.text_size = pieces.size
    names = [*semantic_ids.WRAPPERS, *DELIMITERS]
    names += [f'<|{x}|>' for x in (*TASKS, *ROLES)]
    self.sid_offset = self.text_size + len(names)
    names += [
      semantic_ids.token(k, c) for k in range(levels) for c in range(codes)
    ]
    self._added = {n: self.text_size + i for i, n in enumerate(names)}
    used = max(self.text_size + len(names), min_rows)
    self.size = padding.round_up(used, ROW_MULTIPLE)
    self.sid_begin = self._added[semantic_ids.BEGIN]
    self.sid_end = self._added[semantic_ids.END]
    self._bytes = pieces.bytes + [name.encode() for name in names]

  @classmethod
  def train(
    cls, lines: Iterable[str], text_size: int, levels: int, codes: int
  ) -> 'Vocab':
    """Trains the text pieces on a corpus; see `pieces.train`.

    Args:
      lines: texts of the corpus.
      text_size: number of text pieces, at least 260 plus one for each
        character of the corpus; fewer where it has no more.
      levels: L.
      codes: C.

    Raises:
      ValueError: `text_size` is too small for the corpus.
    """
    return cls(pieces_lib.train(lines, text_size), levels, codes)

  @classmethod
  def pretrained(
    cls,
    tokenizer: pretrained_lib.Pretrained,
    levels: int,
    codes: int,
    min_rows: int = 0,
  ) -> 'Vocab':
    """Builds on the tokenizer of a pretrained LLM, as `pretrained.read` gives.

    Args:
      tokenizer: the tokenizer.
      levels: L.
      codes: C.
      min_rows: rows of the checkpoint's embedding table.
    """
    return cls(tokenizer, levels, codes, min_rows)

  def save(self, directory: pathlib.Path) -> None:
    """Writes the text pieces and, last, `vocab.json` into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    self._pieces.save(directory)
    made = {'levels': self.levels, 'codes': self.codes}
    made |= {'text': self._pieces.kind, 'min_rows': self._min_rows}
    made |= {'delimiters': list(DELIMITERS)}
    files.write_json(directory / 'vocab.json', made)

  @classmethod
  def load(cls, directory: pathlib.Path) -> 'Vocab':
    """Reads what `save` wrote; ValueError where it is damaged or another's."""
    meta = files.read_object(directory / 'vocab.json')
    answer.check_delimiters(meta.get('delimiters'), directory)
    kind = meta.get('text')
    try:
      pieces = _KINDS[kind].load(directory)
      return cls(pieces, meta['levels'], meta['codes'], meta.get('min_rows', 0))
    except (KeyError, TypeError, ValueError) as error:
      what = f'{kind!r} text pieces, {error!r}: copy the run again.'
      raise ValueError(
        f'{directory} is not of this version ({what})'
      ) from error

  def tokenizer(self) -> tokenizers.Tokenizer:
    """Returns the pretrained tokenizer with all added tokens, same ids.

    Raises:
      ValueError: the text pieces were trained here.
    """
    return self._pretrained().with_added(self._added)

  def export(self, directory: pathlib.Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`; see `tokenizer`.

    AutoTokenizer of transformers reads them and gives the ids of `encode`, but
    it also finds the special tokens of the pretrained tokenizer where a text
    spells them, may put its begin token in front (`add_special_tokens=False`
    turns that off), and reads U+2581 as a space if the pieces do.
    """
    self._pretrained().export(directory, self._added)

  def token(self, name: str) -> int:
    """Returns the id of an added token, such as '<|rerank|>'."""
    if name not in self._added:
      raise KeyError(f'{name!r} is no added token of this vocabulary.')
    return self._added[name]

  def encode(
    self, text: str, added: Literal['all', 'sids', 'none'] = 'all'
  ) -> list[int]:
    """Turns text into ids.

    Args:
      text: any text; `decode(encode(text)) == text` for all of them, but for
        a pretrained tokenizer that writes the NFC form (`Pretrained`).
      added: which added tokens are recognised where the text spells them:
        'all'; 'sids' (semantic-ID tokens and their wrappers, for
        explanations); 'none' (for titles, which could spell one by chance).

    Returns:
      Token ids.

    Raises:
      ValueError: the text holds a lone surrogate, which no encoding can write.
    """
    if added == 'none':
      return self._pieces.encode(text)
    ids, plain = [], []
    for part in _ADDED.split(text):
      found = self._added.get(part)
      if found is None or (added == 'sids' and not self._is_sid(found)):
        plain.append(part)
        continue
      ids += self._pieces.encode(''.join(plain))
      ids.append(found)
      plain = []
    return ids + self._pieces.encode(''.join(plain))

  def decode(self, ids: Iterable[int]) -> str:
    """Turns ids into text.

    Args:
      ids: token ids. Padding, begin, end and other control ids (the special
        tokens of a pretrained tokenizer) are no text; bytes that do
        not form a character (a model can write such) become U+FFFD.

    Returns:
      The text.

    Raises:
      ValueError: an id outside the vocabulary.
    """
    parts = []
    for token in ids:
      if not 0 <= token < self.size:
        raise ValueError(f'Token {token} is outside 0..{self.size - 1}.')
      if token < len(self._bytes):
        parts.append(self._bytes[token])
    return b''.join(parts).decode(errors='replace')

  def sid_tokens(self, sids: np.ndarray) -> np.ndarray:
    """Returns the token ids of semantic IDs: int [..., L] -> int32 [..., L].

    Raises:
      ValueError: another number of levels, or a code outside 0..C-1.
    """
    sids = np.asarray(sids)
    if sids.shape[-1:] != (self.levels,):
      raise ValueError(
        f'Semantic IDs of shape {sids.shape}: the last axis must be '
        f'{self.levels} levels.'
      )
    if sids.size and (sids.min() < 0 or sids.max() >= self.codes):
      raise ValueError(
        f'Codes {sids.min()}..{sids.max()} do not fit a vocabulary of '
        f'{self.codes} codes a level: train it with the codes of the sid stage.'
      )
    return self.answer_format().sid_tokens(sids).astype(np.int32)

  @functools.cached_property
  def _unsafe(self) -> tuple[int, ...]:
    roles = [self._added[f'<|{name}|>'] for name in (*TASKS, *ROLES)]
    return *answer.unsafe_pieces(self._pieces.bytes), *roles

  def answer_format(self) -> answer.AnswerFormat:
    """Returns the ids that an answer is made of."""
    open_, top, mid, sep, close = (self._added[name] for name in DELIMITERS)
    return answer.AnswerFormat(
      open=open_,
      top=top,
      mid=mid,
      sep=sep,
      close=close,
      eos=self.eos,
      pad=self.pad,
      sid_begin=self.sid_begin,
      sid_end=self.sid_end,
      sid_offset=self.sid_offset,
      levels=self.levels,
      codes=self.codes,
      unsafe=self._unsafe,
    )

  def _pretrained(self) -> pretrained_lib.Pretrained:
    if not isinstance(self._pieces, pretrained_lib.Pretrained):
      raise ValueError(
        f'The {self._pieces.kind} pieces of this vocabulary were trained here, '
        'and other software has no tokenizer for them: export a run that '
        'started from a pretrained model (--config.lm.pretrained=MODEL).'
      )
    return self._pieces

  def _is_sid(self, token: int) -> bool:
    return token >= self.sid_offset or token in (self.sid_begin, self.sid_end)
