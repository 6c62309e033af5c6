"""The tokenizer and the constrained beam search beside their peers.

Peers see the same arrays in the same precision, or the one they are fastest in.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from configs import beauty
from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.decode import retrieve
from gr2_jax.lm import decoder
from gr2_jax.lm.config import ModelConfig
from gr2_jax.sid import assign, batches, quantised, rqvae, steps, vectors
from gr2_jax.sid import index as sid_index
from gr2_jax.sid.config import SidConfig
from gr2_jax.text import answer
from launch.bench import contests
from launch.bench.peers import torch_rqvae, transformers_lm

ITEMS, WIDTH, BATCH = 16_384, 384, 512
# So that a call takes tenths of a second, not milliseconds.
EPOCHS, PASSES, BATCHES = 4, 16, 8
BF16 = contests.multiplies_bf16()
SID = SidConfig(batch_size=BATCH, bf16_matmul=BF16, split_below=0.0)
USERS, PROMPT, BEAM = 32, 64, 10
# The decoder of configs/beauty.py.
LM = config_lib.build(
  ModelConfig, {**beauty.get_config().lm, 'bf16_matmul': BF16}
).shape(vocab_size=5_120)


def parts() -> dict[str, Callable[[], list[contests.Contest]]]:
  """Returns the parts of this group."""
  return {'tokenizer': _tokenizer, 'beam search': _beam_search}


def _repeat(times: int, run: Callable[[], object]) -> Callable[[], None]:
  def repeated():
    for _ in range(times):
      run()

  return repeated


def _tokenizer() -> list[contests.Contest]:
  rng = np.random.default_rng(0)
  topics = rng.normal(size=(200, WIDTH))
  noise = 0.5 * rng.normal(size=(ITEMS, WIDTH))
  data = vectors.scaled(topics[rng.integers(0, 200, ITEMS)] + noise)[:]
  mesh = sharding.make_mesh()
  state = steps.create(SID, *data.shape, mesh, seed=0)
  state = steps.start_books(state, SID, data, jax.random.key(0))
  books = np.asarray(state.books)
  latent = np.asarray(
    rqvae.apply(
      rqvae.Autoencoder(SID, WIDTH), state.train.params, data, 'encode'
    )
  )
  held = [jax.tree.map(jnp.copy, state)]
  source = batches.source(data, SID, 0, None)

  def train():
    # Made again, so that nothing is read ahead during the peer's turn.
    blocks = batches.iterate(source)
    for block in itertools.islice(blocks, EPOCHS * source.plan.blocks):
      block = sharding.shard_batch(mesh, block)
      with jax.set_mesh(mesh):
        held[0], _ = steps.block(held[0], SID, ITEMS, block, jnp.array(True))
    jax.block_until_ready(held[0].books)

  device_books = sharding.replicate(mesh, books)
  network = torch_rqvae.Rqvae(SID, WIDTH, books)
  train_name, peer_train = contests.fastest(network.training(data, BATCH))
  assign_name, peer_assign = contests.fastest(network.assignment(data))
  return [
    contests.Contest(
      'RQ-VAE training', f'PyTorch {train_name}', 'items', EPOCHS * ITEMS,
      ours=train, theirs=_repeat(EPOCHS, peer_train), goal=1.2,
    ),
    contests.Contest(
      'assignment', f'PyTorch {assign_name}', 'items', PASSES * ITEMS,
      ours=_repeat(PASSES, lambda: quantised.codes(state, SID, data, mesh)),
      theirs=_repeat(PASSES, peer_assign), goal=1.0,
    ),
    contests.Contest(
      'quantising alone', 'faiss ResidualQuantizer, beam 1', 'items',
      PASSES * ITEMS,
      ours=_repeat(
        PASSES, lambda: quantised.nearest(device_books, latent, mesh)
      ),
      theirs=_repeat(PASSES, torch_rqvae.faiss_quantiser(books, latent)),
      goal=1.0,
    ),
  ]  # fmt: skip


def _beam_search() -> list[contests.Contest]:
  """Users' next items by constrained beam search over 12,000 items."""
  rng, mesh = np.random.default_rng(0), sharding.make_mesh()
  _, sids = assign.assign(rng.integers(0, 256, (12_000, 4)), 256, seed=0)
  offset = LM.vocab_size - 4 * 256
  fmt = answer.AnswerFormat(
    open=4, top=2, mid=5, sep=6, close=7, eos=1, pad=0, sid_begin=3, sid_end=8,
    sid_offset=offset, levels=4, codes=256, unsafe=(),
  )  # fmt: skip
  params, _ = sharding.init(
    decoder.init_fn(LM), mesh, sharding.DECODE_RULES, jax.random.key(0)
  )
  config, params = decoder.narrow(LM, params)
  retriever = retrieve.Retriever(
    config=config,
    params=params,
    mesh=mesh,
    index=sharding.replicate(mesh, sid_index.build(sids, 256)),
    fmt=fmt,
    width=BEAM,
    batch_size=USERS,
  )
  prompts = rng.integers(8, offset, (USERS, PROMPT))
  tokens = sids + offset + np.arange(4) * 256
  nobody = [np.zeros(0, np.int32)] * USERS
  name, peer = contests.fastest(
    transformers_lm.beam_search(LM, prompts, tokens, BEAM)
  )
  return [
    contests.Contest(
      'constrained beam search, batch 32, beam 10',
      f'transformers {name} generate, prefix_allowed_tokens_fn',
      'users',
      BATCHES * USERS,
      ours=_repeat(
        BATCHES, lambda: retriever.top_k(prompts.tolist(), BEAM, nobody)
      ),
      theirs=_repeat(BATCHES, peer),
      goal=10.0,
    )
  ]
