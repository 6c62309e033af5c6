"""The numbers of the semantic IDs."""

import dataclasses
from typing import Literal

from gr2_jax import bounds


@dataclasses.dataclass(frozen=True)
class SidConfig:
  """Section `config.sid`.

  Attributes:
    levels: L, 4 [P].
    codes: C, 256 [N: OneRec-Think].
    embeddings: file of item vectors: `.npz` or Parquet with ids, or `.npy` with
      an ids file or in the order of the items file (`vector_files.py`); empty:
      the item texts are embedded by MiniLM.
    max_length: tokens of an item text that are embedded [G].
    embed_tokens: tokens in a batch of texts; speed only.
    bf16_matmul: operands of the products in the text encoder and in the
      RQ-VAE's encoder and decoder in bfloat16, sums in float32 [G]. Distances
      to codes are always float32.
    hidden: widths between the embedding and the latent vector [G].
    latent: width of the latent vector and of the codes [G].
    epochs: passes over the items [G].
    batch_size: items in a step [G]; the more items, the larger it may be.
    lr: peak learning rate of encoder and decoder, cosine to 0 [G].
    weight_decay: of encoder and decoder [G].
    quantiser: 'rqvae' [P], or 'kmeans', residual k-means on the embeddings
      themselves, without an encoder: the baseline [N].
    commitment: gamma, the weight of |r_k - sg(q_k)|^2 [N: 0.25, van den Oord
      et al., arXiv 1711.00937].
    init: of the codebooks: 'kmeans++', level by level on residuals [P], or
      'random', uniform within 1 / C [N: van den Oord et al.].
    ema: codebooks are moving averages [P]; False trains them by gradients.
    decay: of the EMA codebooks, 0.95 to 0.99 [P].
    codebook: beta, the weight of |sg(r_k) - q_k|^2 without EMA [N: 1, van den
      Oord et al.].
    diversity: lambda, the weight of C sum_j p_j^2 [P]; 0 for none.
    dead_reset: tau, batches without use after which a code restarts at a badly
      reconstructed item [P]; 0 for never.
    split_below: a code whose running use, over about an epoch, falls below
      this part of an even use moves next to a crowded one, until a quarter of
      the quantised epochs is left (`codebook.split_rare`) [G]; 0 for never.
    contrastive: weight of InfoNCE between items that were engaged with one
      after the other in the training interactions [P]; 0 for none.
    contrastive_temperature: of InfoNCE [G].
    contrastive_window: how far apart in a history the two may stand [G].
    warmup_epochs: passes without quantisation, before k-means starts the
      codebooks on the residuals of a latent space that has some shape [G].
    kmeans_iterations: Lloyd's steps after k-means++ [G].
    kmeans_items: items, at most, drawn at random, that start the codebooks
      (or make them, with quantiser='kmeans') [G]; all of them lie on each
      device.
    last_level: how the last code is chosen: 'random', colliding items draw
      unused ones [P]; 'sinkhorn', colliding items share the codes out evenly by
      distance [N: LC-Rec]; 'nearest', as the quantiser says.
    check_every: epochs between checkpoints and counts of uniqueness.
  """

  levels: int = 4
  codes: int = 256
  embeddings: str = ''
  max_length: int = 128
  embed_tokens: int = 2048
  bf16_matmul: bool = True
  hidden: tuple[int, ...] = (512, 256)
  latent: int = 64
  epochs: int = 120
  batch_size: int = 256
  lr: float = 3e-3
  weight_decay: float = 0.01
  quantiser: Literal['rqvae', 'kmeans'] = 'rqvae'
  commitment: float = 0.25
  init: Literal['kmeans++', 'random'] = 'kmeans++'
  ema: bool = True
  decay: float = 0.99
  codebook: float = 1.0
  diversity: float = 0.0
  dead_reset: int = 0
  split_below: float = 0.25
  contrastive: float = 0.0
  contrastive_temperature: float = 0.1
  contrastive_window: int = 2
  warmup_epochs: int = 20
  kmeans_iterations: int = 10
  kmeans_items: int = 65_536
  last_level: Literal['random', 'sinkhorn', 'nearest'] = 'random'
  check_every: int = 20

  def __post_init__(self):
    bounds.at_least(self, 1, 'epochs', 'max_length', 'embed_tokens')
    bounds.at_least(self, 0, 'lr', 'weight_decay', 'commitment')
    for name, low, high in (
      ('levels', 1, 16),
      ('codes', 2, 2**20),
      ('latent', 1, 2**16),
      ('batch_size', 1, 2**24),
      ('decay', 0.0, 1.0),
      ('kmeans_iterations', 0, 10_000),
      ('kmeans_items', 1, 10**9),
      ('check_every', 1, 10**6),
      ('warmup_epochs', 0, self.epochs - 1),
      ('dead_reset', 0, 10**9),
      ('split_below', 0.0, 0.9),
      ('contrastive_window', 1, 10**6),
    ):
      if not low <= getattr(self, name) <= high:
        raise ValueError(
          f'sid.{name} = {getattr(self, name)} must lie in {low}..{high}.'
        )
    for name, known in (
      ('quantiser', ('rqvae', 'kmeans')),
      ('init', ('kmeans++', 'random')),
      ('last_level', ('random', 'sinkhorn', 'nearest')),
    ):
      if getattr(self, name) not in known:
        raise ValueError(
          f'sid.{name} = {getattr(self, name)!r} must be one of {known}.'
        )
    for name in ('codebook', 'diversity', 'contrastive'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'sid.{name} = {getattr(self, name)} must be 0 or more.'
        )
    if self.contrastive_temperature <= 0:
      raise ValueError(
        f'sid.contrastive_temperature = {self.contrastive_temperature} must be '
        'above 0.'
      )
