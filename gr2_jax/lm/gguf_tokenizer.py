"""The tokenizer of a GGUF file, as the `tokenizers` package runs it."""

from typing import Any

import tokenizers
from absl import logging
from tokenizers import (
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from gr2_jax.lm.gguf_file import File

TOKENS = 'tokenizer.ggml.tokens'

# Kinds of tokens in the metadata.
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5

# GPT-2's pattern, Llama 3's and Qwen2's, as the models' own tokenizers have
# them; they differ in how many digits stand together.
_GPT2 = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
  r'|\s+(?!\S)|\s+'
)
_LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
_QWEN2 = _LLAMA3.replace('{1,3}', '')
# Each pattern cuts the pieces that the one before it left. 'default' is what
# llama.cpp does with a model of which it knows nothing better.
_PATTERNS = {
  'gpt-2': (_GPT2,),
  'default': (r'[\p{P}\$\+<=>\^~\|]+', _GPT2, r'\p{N}+', r'[0-9][0-9][0-9]'),
  'smollm': (r'\p{N}', _GPT2),
  'qwen2': (_QWEN2,),
  'llama-bpe': (_LLAMA3,),
}


def build(file: File, vocab_size: int) -> tokenizers.Tokenizer:
  """Makes the tokenizer that a file describes.

  Control tokens become special added tokens, user-defined ones added tokens.
  Where the file asks for begin or end tokens, `encode` adds them, unless it is
  called with `add_special_tokens=False`.

  Args:
    file: the file.
    vocab_size: V, rows of the token table.

  Returns:
    The tokenizer. Bytes that the vocabulary lacks vanish from texts, as they
    do in the model's own tokenizer; a warning lists them.

  Raises:
    ValueError: the metadata is incomplete, contradicts itself, or names a
      tokenizer or a pre-tokenizer that is not supported.
  """
  _check_model(file)
  pre = file.require('tokenizer.ggml.pre', str)
  if pre not in _PATTERNS:
    raise ValueError(
      f'{file.path}: tokenizer.ggml.pre is {pre!r}; the known pre-tokenizers '
      f'are {sorted(_PATTERNS)}. Add its pattern to lm/gguf_tokenizer.py.'
    )
  tokens, kinds = _tokens(file, vocab_size)
  ids = {token: i for i, token in enumerate(tokens)}
  lost = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(ids))
  if lost:
    logging.warning(
      'The vocabulary of %s lacks the byte tokens %s: text loses these bytes.',
      file.path,
      ''.join(lost),
    )
  # Llama 3's own tokenizer takes a word that is a token without merging it.
  bpe = models.BPE(ids, _merges(file, ids), ignore_merges=pre == 'llama-bpe')
  out = tokenizers.Tokenizer(bpe)
  if pre == 'qwen2':
    # Not in the metadata, but in the tokenizer of all models of this pattern.
    out.normalizer = normalizers.NFC()
  splits = [
    pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
    for pattern in _PATTERNS[pre]
  ]
  out.pre_tokenizer = pre_tokenizers.Sequence(
    [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  )
  out.decoder = decoders.ByteLevel()
  for token, kind in zip(tokens, kinds, strict=True):
    if kind in (_CONTROL, _USER):
      special = kind == _CONTROL
      added = tokenizers.AddedToken(token, special=special, normalized=False)
      (out.add_special_tokens if special else out.add_tokens)([added])
  processor = _processor(file, tokens, pre)
  if processor is not None:
    out.post_processor = processor
  return out


def _check_model(file: File) -> None:
  model = file.require('tokenizer.ggml.model', str)
  if model == 'llama':
    raise ValueError(
      f"{file.path}: tokenizer.ggml.model is 'llama', SentencePiece by scores. "
      'Where two overlapping pairs of pieces spell the same piece it takes the '
      'left one, which the ranked merges of a tokenizers.Tokenizer cannot '
      'express, so it is not supported: load the model from its Hugging Face '
      'files, with their tokenizer.json.'
    )
  if model != 'gpt2':
    raise ValueError(
      f'{file.path}: tokenizer.ggml.model is {model!r}; only '
      "'gpt2', byte-level BPE, is supported. Use a model that has it."
    )
  if file.get('tokenizer.ggml.add_space_prefix', False):
    raise ValueError(
      f'{file.path} asks for tokenizer.ggml.add_space_prefix = True, which is '
      'not supported with byte-level BPE: use a model without it.'
    )


def _tokens(file: File, vocab_size: int) -> tuple[list[str], list[int]]:
  tokens = file.require(TOKENS, [str])
  kinds = file.require('tokenizer.ggml.token_type', [int])
  if not len(tokens) == len(kinds) == vocab_size:
    raise ValueError(
      f'{file.path}: {len(tokens)} tokens and {len(kinds)} token types for '
      f'{vocab_size} rows of the token table: convert the model again.'
    )
  places = {}
  for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)):
    if token in places:
      raise ValueError(
        f'{file.path}: the token {token!r} has the ids {places[token]} and '
        f'{i}: convert the model again.'
      )
    places[token] = i
    if kind not in (_NORMAL, _CONTROL, _USER, _UNUSED):
      raise ValueError(
        f'{file.path}: the token {token!r} is of type {kind}; byte-level BPE '
        f'has the types {[_NORMAL, _CONTROL, _USER, _UNUSED]}: convert the '
        'model again.'
      )
  return tokens, kinds


def _merges(file: File, ids: dict[str, int]) -> list[tuple[str, str]]:
  pairs = []
  for merge in file.require('tokenizer.ggml.merges', [str]):
    left, _, right = merge.partition(' ')
    lacking = [t for t in (left, right, left + right) if t not in ids]
    if lacking:
      raise ValueError(
        f'{file.path}: the merge {merge!r} needs the tokens {lacking}, which '
        'the vocabulary lacks: convert the model again.'
      )
    pairs.append((left, right))
  return pairs


def _processor(file: File, tokens: list[str], pre: str) -> Any:
  """Returns what adds begin and end tokens; None where nothing is added."""
  pieces, used = ['$A'], []
  # llama.cpp adds Llama 3's begin token even where the file is silent.
  defaults = {'bos': pre == 'llama-bpe', 'eos': False}
  for name, default in defaults.items():
    if not file.get(f'tokenizer.ggml.add_{name}_token', default):
      continue
    place = file.require(f'tokenizer.ggml.{name}_token_id', int)
    if not 0 <= place < len(tokens):
      raise ValueError(
        f'{file.path}: tokenizer.ggml.{name}_token_id is {place}, but there '
        f'are {len(tokens)} tokens: convert the model again.'
      )
    used.append((tokens[place], place))
    pieces.insert(0 if name == 'bos' else len(pieces), tokens[place])
  if not used:
    return None
  return processors.TemplateProcessing(single=pieces, special_tokens=used)


def roles(file: File) -> dict[str, str | None]:
  """Returns the names of the tokens that begin, end and fill up texts.

  Args:
    file: the file.

  Returns:
    `bos`, `eos`, `pad` and `chat_template`; None for what the file is silent
    about.
  """
  tokens = file.require(TOKENS, [str])
  keys = {'bos': 'bos', 'eos': 'eos', 'pad': 'padding'}
  found = {
    role: file.get(f'tokenizer.ggml.{key}_token_id', kind=int)
    for role, key in keys.items()
  }
  for role, place in found.items():
    if place is not None and not 0 <= place < len(tokens):
      raise ValueError(
        f'{file.path}: the token for {role} is {place}, but there are '
        f'{len(tokens)} tokens: convert the model again.'
      )
  names = {
    role: None if place is None else tokens[place]
    for role, place in found.items()
  }
  template = file.get('tokenizer.chat_template', kind=str)
  return {**names, 'chat_template': template}
