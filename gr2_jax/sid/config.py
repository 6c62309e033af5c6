"""The numbers of the semantic IDs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SidConfig:
  """Section `config.sid`.

  Attributes:
    levels: L, 4 [P].
    codes: C, 256 [N: OneRec-Think].
    embeddings: path of a `.npy`, float [I, W], in the order of the items of
      the data set; empty: the item texts are embedded by MiniLM.
    max_length: tokens of an item text that are embedded [G].
    embed_tokens: tokens in a batch of texts; speed only.
    bf16_matmul: the text encoder's operands in bfloat16; speed only.
    hidden: widths between the embedding and the latent vector [G].
    latent: width of the latent vector and of the codes [G].
    epochs: passes over the items [G].
    batch_size: items in a step [G]; the more items, the larger it may be.
    lr: peak learning rate of encoder and decoder, cosine to 0 [G].
    weight_decay: of encoder and decoder [G].
    commitment: gamma, the weight of |r_k - sg(q_k)|^2 [N: 0.25, van den Oord
      et al., arXiv 1711.00937].
    decay: of the EMA codebooks, 0.95 to 0.99 [P].
    warmup_epochs: passes without quantisation, before k-means starts the
      codebooks on the residuals of a latent space that has some shape [G].
    kmeans_iterations: Lloyd's steps after k-means++ [G].
    random_last_level: colliding items draw an unused last code [P].
    check_every: epochs between checkpoints and counts of uniqueness.
  """

  levels: int = 4
  codes: int = 256
  embeddings: str = ''
  max_length: int = 128
  embed_tokens: int = 2048
  bf16_matmul: bool = False
  hidden: tuple[int, ...] = (512, 256)
  latent: int = 64
  epochs: int = 120
  batch_size: int = 256
  lr: float = 3e-3
  weight_decay: float = 0.01
  commitment: float = 0.25
  decay: float = 0.99
  warmup_epochs: int = 20
  kmeans_iterations: int = 10
  random_last_level: bool = True
  check_every: int = 20

  def __post_init__(self):
    for name, low, high in (
      ('levels', 1, 16),
      ('codes', 2, 2**20),
      ('latent', 1, 2**16),
      ('batch_size', 1, 2**24),
      ('decay', 0.0, 1.0),
      ('kmeans_iterations', 0, 10_000),
      ('check_every', 1, 10**6),
      ('warmup_epochs', 0, self.epochs - 1),
    ):
      if not low <= getattr(self, name) <= high:
        raise ValueError(
          f'sid.{name} = {getattr(self, name)} must lie in {low}..{high}.'
        )
