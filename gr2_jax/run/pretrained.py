"""Pretrained models as a start of the pipeline: weights, tokenizer, new rows.

`config.lm.pretrained` names a Hugging Face directory, a GGUF file, or an asset
that holds one. The checkpoint fixes the model; beside it, `config.lm` holds how
it is run (`lm.config.RUNTIME`) and whether it is trained by LoRA.
"""

import pathlib
from typing import Any

import jax
import ml_collections
import tokenizers

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.lm import foreign, gguf, grow, hf, lora
from gr2_jax.lm.config import LMConfig, ModelConfig
from gr2_jax.text import pretrained
from gr2_jax.text.vocab import Vocab
from gr2_jax.train import optimiser


def read(config: ml_collections.ConfigDict) -> ModelConfig:
  """Returns the settings of the model.

  Args:
    config: of the run; its section `lm`.

  Raises:
    ValueError: sizes beside a checkpoint, which fixes them.
  """
  return config_lib.build(ModelConfig, config.lm, 'lm')


def source(config: ml_collections.ConfigDict) -> str:
  """Returns `config.lm.pretrained`, empty for a model from scratch."""
  return config.lm.get('pretrained', '')


def fingerprint(config: ml_collections.ConfigDict) -> str:
  """Identifies the checkpoint, see `foreign.fingerprint`; '' where none is."""
  name = source(config)
  return foreign.fingerprint(_path(name)) if name else ''


def load(
  config: ml_collections.ConfigDict,
  levels: int,
  codes: int,
  mesh: jax.sharding.Mesh,
  seed: int,
) -> tuple[LMConfig, Any, Vocab]:
  """Reads the pretrained model and gives it the tokens of this project.

  Args:
    config: of the run; its section `lm` names the model.
    levels: L of the semantic IDs.
    codes: C, codes a level.
    mesh: the mesh.
    seed: of the new rows, and of LoRA's.

  Returns:
    (shape, parameters for training, vocabulary).

  Raises:
    ValueError: `config.lm` holds sizes, which are the checkpoint's, or the
      model cannot be read.
    FileNotFoundError: no such file or directory.
  """
  cfg = read(config)
  rules = sharding.TRAIN_RULES
  path = _path(cfg.pretrained)
  if path.is_file():
    shape, params, tokenizer = gguf.load(path, mesh, rules, **cfg.runtime)
    pieces = _pieces(path, tokenizer)
  else:
    shape, params = hf.load(path, mesh, rules, **cfg.runtime)
    pieces = pretrained.read(path)
  foreign.check_rows(path, pieces.size, shape.vocab_size)
  vocab = Vocab.pretrained(pieces, levels, codes, shape.vocab_size)
  key = jax.random.key(seed)
  shape, params = grow.grow(
    shape, params, vocab.text_size, vocab.size, mesh=mesh, rules=rules, key=key
  )
  if cfg.lora_rank:
    key = jax.random.fold_in(key, 2)
    shape, params = lora.add(
      shape,
      params,
      cfg.lora_rank,
      cfg.lora_alpha,
      mesh=mesh,
      rules=rules,
      key=key,
    )
  return shape, params, vocab


def read_shape(cfg: ModelConfig) -> tuple[LMConfig, pretrained.Pretrained]:
  """Reads all but the weights of the pretrained model, as before it grows.

  Args:
    cfg: names the model.

  Returns:
    (shape without LoRA, tokenizer).
  """
  path = _path(cfg.pretrained)
  if path.is_file():
    shape = gguf.read_config(path, **cfg.runtime)
    pieces = _pieces(path, gguf.read_tokenizer(path))
  else:
    shape, pieces = hf.read_config(path, **cfg.runtime), pretrained.read(path)
  foreign.check_rows(path, pieces.size, shape.vocab_size)
  return shape, pieces


def trainable(shape: LMConfig, vocab: Vocab) -> optimiser.Trainable | None:
  """Returns what the phases after the warm-up train.

  Args:
    shape: of the model.
    vocab: its vocabulary.

  Returns:
    None for everything; with LoRA its matrices and the rows of added tokens.
  """
  if not shape.lora_rank:
    return None
  rows = optimiser.new_rows(vocab.text_size)
  return lambda path: True if path[-1] in lora.NAMES else rows(path)


def _path(name: str) -> pathlib.Path:
  return foreign.find(name, 'lm.pretrained')


def _pieces(
  path: pathlib.Path, tokenizer: tokenizers.Tokenizer
) -> pretrained.Pretrained:
  """Takes the tokenizer of a GGUF file over."""
  roles = gguf.roles(path)
  if not roles['eos']:
    raise ValueError(
      f'{path} does not say which token ends a text: convert the model again.'
    )
  try:
    return pretrained.Pretrained(tokenizer, **roles)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
