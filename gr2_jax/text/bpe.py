"""What a `tokenizer.json` of byte-pair encoding says, and how to make it exact.

Two kinds are read. Byte-level BPE writes each byte of a text as one character
of a fixed alphabet (GPT-2, Llama 3, Qwen, SmolLM2). SentencePiece-style BPE
writes a space as U+2581 and a character that it lacks as byte pieces such as
<0x0A> (Llama 2). A specification is the parsed JSON, in the form in which
`tokenizers.Tokenizer.to_str` writes it.
"""

import functools
import re
from collections.abc import Mapping, Sequence, Set

from gr2_jax.text import pieces

_BYTE_PIECE = re.compile(r'<0x([0-9A-F]{2})>')
_WRITES_SPACES = {
  'type': 'Replace',
  'pattern': {'String': ' '},
  'content': pieces.SPACE,
}
# Splitting a text at these places loses none of it.
_SPLITTERS = ('Split', 'Digits')


@functools.cache
def alphabet() -> Mapping[str, int]:
  """Returns the 256 characters of byte-level BPE and the byte of each.

  GPT-2's table: printable bytes of Latin-1 are themselves; the others, in
  their order, are the characters from U+0100 on.
  """
  printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
  others = [byte for byte in range(256) if byte not in printable]
  table = {chr(byte): byte for byte in printable}
  return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def byte_piece(byte: int) -> str:
  """Returns the name of a byte in SentencePiece-style BPE."""
  return f'<0x{byte:02X}>'


def is_byte_level(spec: Mapping) -> bool:
  """Returns which of the two kinds a specification is of."""
  return any(s['type'] == 'ByteLevel' for s in _steps(spec['pre_tokenizer']))


def piece_bytes(name: str, byte_level: bool) -> bytes:
  """Returns the bytes that a piece writes.

  Args:
    name: the piece, as the specification spells it.
    byte_level: its kind.

  Returns:
    The bytes. A byte-level name with a character outside the alphabet is no
    product of the model: it stands for itself, as in the library's decoder.
  """
  if byte_level:
    values = [alphabet().get(character) for character in name]
    return name.encode() if None in values else bytes(values)
  byte = _BYTE_PIECE.fullmatch(name)
  if byte:
    return bytes([int(byte[1], 16)])
  return name.replace(pieces.SPACE, ' ').encode()


def exact(spec: Mapping) -> dict:
  """Returns a specification whose pieces, joined, are the text.

  It is the given one, but a text gets no space in front that it did not have
  (Llama 2's dummy prefix), and decoding takes none away. Texts here stand
  between added tokens and bring the spaces that they need.

  Args:
    spec: the specification.

  Returns:
    The new one; the model's pieces, merges and ids are the same.

  Raises:
    ValueError: the tokenizer is of another kind, or loses something of a text.
  """
  model = spec['model']
  _check_model(model)
  normalizers = _steps(spec['normalizer'])
  splitters = _steps(spec['pre_tokenizer'])
  if is_byte_level(spec):
    normalizers, splitters = _exact_byte_level(normalizers, splitters)
    decoder = _byte_level_decoder()
  elif model['byte_fallback']:
    normalizers, splitters = _exact_metaspace(normalizers, splitters)
    decoder = _metaspace_decoder()
    # It would turn a title that spells '<0x41>' into the piece of the byte.
    _require(not model['ignore_merges'], 'ignore_merges beside byte pieces')
  else:
    found = [step['type'] for step in splitters] or 'nothing'
    _require(False, f'pre_tokenizer {found} without byte_fallback')
  return {
    **spec,
    'truncation': None,
    'padding': None,
    'normalizer': _sequence('normalizers', normalizers),
    'pre_tokenizer': _sequence('pretokenizers', splitters),
    'decoder': decoder,
  }


def control(spec: Mapping) -> set[str]:
  """Returns the added tokens that are no text, and the unknown piece.

  They are the special ones and those that no merge of the model makes: files
  differ in what they call special (Qwen's <think> is not), and pieces of text
  can stand among the added tokens too (Gemma's line breaks).
  """
  model = spec['model']
  made = {left + right for left, right in model['merges']}
  names = {
    token['content']
    for token in spec['added_tokens']
    if token['special'] or token['content'] not in made
  }
  return names | set(filter(None, [model['unk_token']]))


def plain(spec: Mapping, excluded: Set[str]) -> dict:
  """Returns a specification that reads every text as nothing but text.

  Args:
    spec: an exact specification.
    excluded: names of pieces that no text may produce.

  Returns:
    The specification without added tokens and without these pieces, so that
    neither matching nor merging can produce one. `lost` says what it cannot
    write.
  """
  model = spec['model']
  merges = model['merges']
  if not model['vocab'].keys().isdisjoint(excluded):
    merges = [
      (left, right)
      for left, right in merges
      if not {left, right, left + right} & excluded
    ]
  vocab = {n: i for n, i in model['vocab'].items() if n not in excluded}
  # Bytes cover the texts, so the unknown piece can go with the others.
  model = {**model, 'vocab': vocab, 'merges': merges, 'unk_token': None}
  return {**spec, 'added_tokens': [], 'post_processor': None, 'model': model}


def lost(spec: Mapping) -> frozenset[int]:
  """Returns the bytes that a specification has no piece for.

  Vocabularies that were trained without bytes to fall back on lack those that
  stood nowhere in their corpus: SmolLM2's six control characters and the bytes
  that no, or no assigned, character begins with.

  Args:
    spec: a specification that `plain` returned.

  Raises:
    ValueError: one of them is of plain ASCII, or of U+FFFD, which stands for
      the characters that cannot be written.
  """
  vocab = spec['model']['vocab']
  names = {byte: name for name, byte in alphabet().items()}
  if not is_byte_level(spec):
    names = {byte: byte_piece(byte) for byte in range(256)}
  found = frozenset(b for b, name in names.items() if name not in vocab)
  needed = {*b'\t\n', *range(0x20, 0x7F), *'\ufffd'.encode()} & found
  _require(not needed, f'no piece for the bytes {bytes(sorted(needed))}')
  return found


def _check_model(model: Mapping) -> None:
  _require(model['type'] == 'BPE', f'model {model["type"]}')
  for key in ('continuing_subword_prefix', 'end_of_word_suffix', 'dropout'):
    _require(not model[key], f'{key} {model[key]!r}')


def _exact_byte_level(
  normalizers: Sequence[dict], splitters: Sequence[dict]
) -> tuple[list[dict], list[dict]]:
  for step in normalizers:
    _require(step['type'] == 'NFC', f'normalizer {step["type"]}')
  changed = []
  for step in splitters:
    if step['type'] == 'ByteLevel':
      step = {**step, 'add_prefix_space': False}
    else:
      _check_splitter(step)
    changed.append(step)
  return list(normalizers), changed


def _exact_metaspace(
  normalizers: Sequence[dict], splitters: Sequence[dict]
) -> tuple[list[dict], list[dict]]:
  kept = [step for step in normalizers if step['type'] != 'Prepend']
  for step in kept:
    _require(step == _WRITES_SPACES, f'normalizer {step}')
  changed, spaces = [], bool(kept)
  for step in splitters:
    if step['type'] == 'Metaspace':
      _require(step['replacement'] == pieces.SPACE, f'pre_tokenizer {step}')
      step, spaces = {**step, 'prepend_scheme': 'never'}, True
    else:
      _check_splitter(step)
    changed.append(step)
  _require(spaces, f'nothing that writes spaces as {pieces.SPACE!r}')
  return kept, changed


def _check_splitter(step: Mapping) -> None:
  known = step['type'] in _SPLITTERS and step.get('behavior') != 'Removed'
  _require(known, f'pre_tokenizer {step}')


def _require(held: bool, found: str) -> None:
  if not held:
    raise ValueError(
      f'The tokenizer has {found}: only byte-level BPE (without a normalizer '
      'or with NFC) and SentencePiece-style BPE with byte fallback write every '
      'text exactly. Use a model with such a tokenizer.'
    )


def _steps(node: Mapping | None) -> list[dict]:
  """Unfolds a normalizer or a pre-tokenizer into its steps, in order."""
  if node is None:
    return []
  if node['type'] != 'Sequence':
    return [node]
  parts = node.get('normalizers') or node.get('pretokenizers') or []
  return [step for part in parts for step in _steps(part)]


def _sequence(key: str, steps: Sequence[dict]) -> dict | None:
  return {'type': 'Sequence', key: list(steps)} if steps else None


def _byte_level_decoder() -> dict:
  switches = ('add_prefix_space', 'trim_offsets', 'use_regex')
  return {'type': 'ByteLevel', **dict.fromkeys(switches, False)}


def _metaspace_decoder() -> dict:
  spaces = {**_WRITES_SPACES, 'pattern': {'String': pieces.SPACE}}
  spaces['content'] = ' '
  steps = [spaces, {'type': 'ByteFallback'}, {'type': 'Fuse'}]
  return {'type': 'Sequence', 'decoders': steps}
