"""The RQ-VAE in PyTorch, and faiss' quantiser: peers of the group `sid`."""

from collections.abc import Callable

import faiss
import numpy as np
import torch
from torch import nn

from gr2_jax.sid.config import SidConfig


class Rqvae:
  """The RQ-VAE of `gr2_jax.sid` in PyTorch: same sizes, EMA codebooks, Adam."""

  def __init__(self, config: SidConfig, width: int, books: np.ndarray):
    """Makes the network.

    Args:
      config: sizes, decay, commitment and learning rate.
      width: W of the embeddings.
      books: float32 [L, C, D], the start.
    """
    self._config, self._width = config, width
    widths = [width, *config.hidden, config.latent]
    self._encoder = _mlp(widths)
    self._decoder = _mlp(widths[::-1])
    self._books = [torch.tensor(book) for book in books]
    parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
    self._adam = torch.optim.AdamW(parameters, lr=config.lr, fused=True)

  def training(
    self, vectors: np.ndarray, batch: int
  ) -> dict[str, Callable[[], None]]:
    """Returns an epoch over vectors [I, W] in each precision.

    Args:
      vectors: float32 [I, W].
      batch: items a step.
    """
    data = torch.tensor(vectors)
    return {
      'float32': lambda: self._epoch(data, batch, bf16=False),
      'bfloat16': lambda: self._epoch(data, batch, bf16=True),
    }

  def assignment(
    self, vectors: np.ndarray
  ) -> dict[str, Callable[[], np.ndarray]]:
    """Returns the quantisation of [I, W] to int64 [I, L], by precision."""
    return {
      'float32': lambda: self._assign(vectors, bf16=False),
      'bfloat16': lambda: self._assign(vectors, bf16=True),
    }

  def _epoch(self, data: torch.Tensor, batch: int, bf16: bool) -> None:
    order = torch.randperm(len(data))
    for start in range(0, len(data), batch):
      self._step(data[order[start : start + batch]], bf16)

  def _step(self, h: torch.Tensor, bf16: bool) -> None:
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
      z = self._encoder(h).float()
    codes, after, residuals = self._quantise(z.detach())
    commitment = ((z[:, None] - after) ** 2).sum((1, 2)).mean()
    straight = z + (after[:, -1] - z).detach()
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
      decoded = self._decoder(straight).float()
    loss = ((h - decoded) ** 2).mean()
    loss = loss + self._config.commitment / self._width * commitment
    self._adam.zero_grad(set_to_none=True)
    loss.backward()
    self._adam.step()
    for level, book in enumerate(self._books):
      self._move(book, codes[:, level], residuals[:, level])

  def _quantise(self, z: torch.Tensor):
    codes, after, residuals = [], [], []
    residual, total = z, torch.zeros_like(z)
    for book in self._books:
      distance = (book**2).sum(-1) - 2 * residual @ book.T
      code = distance.argmin(-1)
      chosen = book[code]
      residuals.append(residual)
      codes.append(code)
      residual, total = residual - chosen, total + chosen
      after.append(total)
    return tuple(torch.stack(x, 1) for x in (codes, after, residuals))

  def _move(
    self, book: torch.Tensor, code: torch.Tensor, residual: torch.Tensor
  ) -> None:
    count = torch.zeros(len(book)).index_add_(0, code, torch.ones(len(code)))
    total = torch.zeros_like(book).index_add_(0, code, residual)
    mean = total / count.clamp(min=1)[:, None]
    decay = self._config.decay
    moved = decay * book + (1 - decay) * mean
    book.copy_(torch.where(count[:, None] > 0, moved, book))

  @torch.inference_mode()
  def _assign(self, vectors: np.ndarray, bf16: bool) -> np.ndarray:
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
      latent = self._encoder(torch.tensor(vectors)).float()
    return self._quantise(latent)[0].numpy()


def _mlp(widths: list[int]) -> nn.Sequential:
  layers: list[nn.Module] = []
  for left, right in zip(widths[:-1], widths[1:], strict=True):
    layers += [nn.Linear(left, right), nn.ReLU()]
  return nn.Sequential(*layers[:-1])


def faiss_quantiser(books: np.ndarray, latent: np.ndarray) -> Callable:
  """Returns faiss' residual quantisation of vectors [I, D], beam 1."""
  levels, codes, width = books.shape
  quantiser = faiss.ResidualQuantizer(width, levels, codes.bit_length() - 1)
  quantiser.max_beam_size = 1
  faiss.copy_array_to_vector(books.ravel(), quantiser.codebooks)
  quantiser.is_trained = True
  quantiser.compute_codebook_tables()
  return lambda: quantiser.compute_codes(latent)
