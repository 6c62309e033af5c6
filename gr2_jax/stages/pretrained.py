"""Pretrained models as a start of the road: weights, tokenizer, new rows.

`config.lm.pretrained` names a Hugging Face directory, a GGUF file, or an asset
that holds one. The checkpoint fixes the model; beside it, `config.lm` holds how
it is run (`layout.RUNTIME`) and whether it is trained by LoRA.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.lm import foreign, gguf, grow, hf, layout, lora
from gr2_jax.lm.config import LMConfig
from gr2_jax.text import pretrained
from gr2_jax.text.vocab import Vocab
from gr2_jax.train import optimiser

_LORA = ('lora_rank', 'lora_alpha')


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
  given = config_lib.to_dict(config.lm)
  name = given.pop('pretrained')
  rank, alpha = (given.pop(key, None) for key in _LORA)
  unknown = sorted(set(given) - set(layout.RUNTIME))
  if unknown:
    raise ValueError(
      f'config.lm has {unknown} beside pretrained = {name!r}: the checkpoint '
      f'fixes the model; leave only {[*layout.RUNTIME, *_LORA]}.'
    )
  rules = sharding.TRAIN_RULES
  path = _path(name)
  if path.is_file():
    shape, params, tokenizer = gguf.load(path, mesh, rules, **given)
    pieces = pretrained.Pretrained(tokenizer, **_roles(path))
  else:
    shape, params = hf.load(path, mesh, rules, **given)
    pieces = pretrained.read(path)
  vocab = Vocab.pretrained(pieces, levels, codes, shape.vocab_size)
  key = jax.random.key(seed)
  shape, params = grow.grow(
    shape, params, vocab.text_size, vocab.size, mesh, rules, key
  )
  if rank:
    alpha = LMConfig.lora_alpha if alpha is None else alpha
    key = jax.random.fold_in(key, 2)
    shape, params = lora.add(shape, params, rank, alpha, mesh, rules, key)
  return shape, params, vocab


def read_shape(config: ml_collections.ConfigDict) -> LMConfig:
  """Reads the shape of the pretrained model, as it is before it grows.

  Args:
    config: of the run; its section `lm` names the model.

  Returns:
    The shape, LoRA included.
  """
  given = config_lib.to_dict(config.lm)
  path = _path(given['pretrained'])
  settings = {name: given[name] for name in layout.RUNTIME if name in given}
  read = gguf.read_config if path.is_file() else hf.read_config
  rank = given.get('lora_rank', 0)
  return dataclasses.replace(read(path, **settings), lora_rank=rank)


def trainable(shape: LMConfig, vocab: Vocab) -> optimiser.Trainable | None:
  """Says what the phases after the warm-up train.

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


def _roles(path: pathlib.Path) -> dict:
  roles = gguf.roles(path)
  if not roles['eos']:
    raise ValueError(
      f'{path} does not say which token ends a text: convert the model anew.'
    )
  return roles
