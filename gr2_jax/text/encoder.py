"""Dense vectors of item texts: a sentence encoder, batched by length.

Letters: n texts, B texts a batch, T tokens, D width.
"""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tokenizers
from jax.sharding import Mesh

from gr2_jax import progress, sharding
from gr2_jax.data import padding
from gr2_jax.lm import foreign
from gr2_jax.text import bert, tokenizer_files

# Rows are padded to the next of these lengths: one compilation each.
BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def load(
  directory: pathlib.Path, bf16_matmul: bool = False
) -> tuple[bert.BertConfig, dict, tokenizers.Tokenizer]:
  """Loads a sentence encoder.

  Args:
    directory: holds `config.json`, `model.safetensors` and `tokenizer.json`,
      e.g. `assets.fetch('minilm')`.
    bf16_matmul: see `BertConfig`.

  Returns:
    (config, params, tokenizer).

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file cannot be read, or they do not fit each other or the
      model.
  """
  config = bert.read_config(directory / 'config.json', bf16_matmul)
  params = bert.read_params(directory / 'model.safetensors', config)
  tokenizer = tokenizer_files.read(directory)
  foreign.check_rows(
    directory, tokenizer_files.size(tokenizer), config.vocab_size
  )
  tokenizer.no_padding()
  # A text that spells [SEP] or [MASK] is a text.
  tokenizer.encode_special_tokens = True
  return config, params, tokenizer


def item_text(item: Any) -> str:
  """Writes what is embedded of an item: title, categories, brand, description.

  The paper embeds title, description and categories [P]; their wording and
  the brand are our choice.

  Args:
    item: a `data.dataset.Item`.

  Returns:
    One line; parts that are empty are left out.
  """
  parts = (
    item.title,
    f'Categories: {", ".join(item.categories)}' if item.categories else '',
    f'Brand: {item.brand}' if item.brand else '',
    item.description,
  )
  return '. '.join(part for part in parts if part)


@functools.cache
def _forward(config: bert.BertConfig):
  def embed_batch(params, tokens, lengths):
    mask = np.arange(tokens.shape[1])[None, :] < lengths[:, None]
    return bert.Bert(config).apply({'params': params}, tokens, mask)

  return jax.jit(embed_batch)


def embed(
  texts: Sequence[str],
  config: bert.BertConfig,
  params: dict,
  tokenizer: tokenizers.Tokenizer,
  mesh: Mesh,
  *,
  max_length: int = 128,
  batch_tokens: int = 4096,
) -> np.ndarray:
  """Embeds texts, shortest first, in batches of about equal token counts.

  Args:
    texts: n texts; an empty one is embedded as its special tokens alone.
    config: of the encoder.
    params: of the encoder.
    tokenizer: of the encoder; its truncation is set to `max_length`.
    mesh: batches are split over its data and fsdp axes.
    max_length: longer texts are cut to this many tokens, special ones counted.
    batch_tokens: tokens in a batch with padding; changes speed only.

  Returns:
    float32 [n, D], rows of length one, in the order of `texts`.

  Raises:
    ValueError: `max_length` exceeds what the encoder knows.
  """
  if not 2 < max_length <= config.positions:
    raise ValueError(
      f'max_length {max_length} must lie in 3..{config.positions}, the number '
      'of positions of the encoder.'
    )
  tokenizer.enable_truncation(max_length)
  rows = [row.ids for row in tokenizer.encode_batch_fast(list(texts))]
  parts = sharding.batch_parts(mesh)
  params = sharding.replicate(mesh, params)
  forward = _forward(config)
  vectors = np.zeros((len(rows), config.width), np.float32)
  buckets = [length for length in BUCKETS if length < config.positions]
  buckets.append(config.positions)
  # Within a bucket, too, the shortest come first.
  order = np.argsort([len(row) for row in rows], kind='stable')
  shapes = [(next(x for x in buckets if len(rows[i]) <= x),) for i in order]
  count = lambda shape: max(batch_tokens // (shape[0] * parts), 1) * parts
  shown = {'desc': 'embed items', 'unit': 'text', 'compiles': True}
  bar = progress.bar(total=len(rows), **shown)
  for (length,), places in padding.by_shape(shapes, count):
    chosen = order[places]
    # Rows that fill up hold one token, so that their mean is defined.
    filler = [[0]] * (count((length,)) - len(chosen))
    batch = [rows[i] for i in chosen] + filler
    lengths = np.array([len(row) for row in batch], np.int32)
    batch = padding.stack(batch, length, 0), lengths
    batch = sharding.shard_batch(mesh, batch)
    with sharding.use(mesh, sharding.DECODE_RULES):
      found = sharding.fetch(mesh, forward(params, *batch))
    vectors[chosen] = found[: len(chosen)]
    bar.update(len(chosen))
  bar.close()
  return vectors
