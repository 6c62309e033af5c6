"""The model of a run: its shape without weights, and what training starts from.

The one place that turns `config.lm` into a decoder, from scratch or from a
pretrained checkpoint (`run/pretrained.py`).
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from gr2_jax import assets, sharding
from gr2_jax.lm import decoder, hf_config, published
from gr2_jax.lm.config import LMConfig
from gr2_jax.run import pretrained
from gr2_jax.text.vocab import Vocab


@dataclasses.dataclass(frozen=True)
class _Unread:
  """As many pieces as a tokenizer has; their texts are not needed."""

  size: int
  pad: int = 0
  bos: int = 1
  eos: int = 2
  kind: str = 'unread'

  @property
  def bytes(self) -> list[bytes]:
    return [b'?'] * self.size


def shape(config: ml_collections.ConfigDict) -> tuple[LMConfig, Vocab]:
  """Returns the shape that `start` would give, and its vocabulary.

  Of the checkpoint that `lm.pretrained` names all but the weights is read, if
  it is there; else its name must be one of `lm/published.py`. The pieces of a
  vocabulary that is not there are only counted.

  Args:
    config: of the run.

  Returns:
    (shape, vocabulary).

  Raises:
    FileNotFoundError: a checkpoint that is neither there nor known.
  """
  sids = config.sid.levels, config.sid.codes
  cfg = pretrained.read(config)
  if not cfg.pretrained:
    vocab = Vocab(_Unread(config.text.pieces), *sids)
    return cfg.shape(vocab.size), vocab
  path = pathlib.Path(cfg.pretrained).expanduser()
  if cfg.pretrained in assets.ASSETS or path.exists():
    found, pieces = pretrained.read_shape(cfg)
  elif path.name in published.CONFIGS:
    raw, pieces = published.CONFIGS[path.name], _Unread(published.TOKENS)
    found = hf_config.from_json(raw, **cfg.runtime)
  else:
    raise FileNotFoundError(
      f'lm.pretrained = {cfg.pretrained!r} is no directory, file or asset, and '
      'no model that is known without its weights: give one of '
      f'{sorted(published.CONFIGS)}, or the directory of a Hugging Face model.'
    )
  vocab = Vocab(pieces, *sids, min_rows=found.vocab_size)
  grown = dataclasses.replace(
    found,
    vocab_size=vocab.size,
    lora_rank=cfg.lora_rank,
    lora_alpha=cfg.lora_alpha,
  )
  return grown, vocab


def start(
  config: ml_collections.ConfigDict,
  sids: tuple[int, int],
  mesh: jax.sharding.Mesh,
  seed: int,
  find_vocab: Callable[[], Vocab],
) -> tuple[LMConfig, Any, Vocab]:
  """Makes what training starts from.

  Args:
    config: of the run.
    sids: levels of the semantic IDs, and codes a level.
    mesh: the mesh.
    seed: of the random weights.
    find_vocab: gives the vocabulary of a model from scratch.

  Returns:
    (shape, parameters for training, vocabulary).
  """
  if pretrained.source(config):
    return pretrained.load(config, *sids, mesh, seed)
  vocab = find_vocab()
  made = pretrained.read(config).shape(vocab.size)
  key = jax.random.key(seed)
  return made, decoder.init(made, mesh, sharding.TRAIN_RULES, key), vocab
