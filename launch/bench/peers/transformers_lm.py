"""Decoders of transformers on PyTorch, with two threads: peers of ours.

Of the groups `lm` and `sid`. Each way that works here is given; the benchmark
takes the fastest. Without units for bfloat16 PyTorch multiplies it many times
more slowly, some of it on one thread: the group `lm` leaves these ways out
there.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
import transformers

from gr2_jax.lm import hf_config
from gr2_jax.lm.config import LMConfig
from launch.bench import contests


def model(config: LMConfig) -> torch.nn.Module:
  """Returns a random model of the same family and shape, in float32."""
  raw = hf_config.to_json(config, 'float32')
  family = raw.pop('architectures')[0]
  shape = transformers.AutoConfig.for_model(raw.pop('model_type'), **raw)
  # No token ends a text, so that as many are written as asked for.
  shape.eos_token_id, shape.pad_token_id = None, 0
  torch.manual_seed(0)
  return getattr(transformers, family)(shape).eval()


def generate(
  config: LMConfig, prompts: np.ndarray, group: int, new: int
) -> dict[str, Callable[[], None]]:
  """Returns `generate` by sampling, in each precision worth trying.

  Args:
    config: the shape.
    prompts: int [Q, P].
    group: G, continuations of each prompt.
    new: tokens to write.
  """
  whole = model(config)
  ids = torch.tensor(prompts)

  @torch.inference_mode()
  def run(network, **options):
    network.generate(
      ids,
      attention_mask=torch.ones_like(ids),
      do_sample=True,
      temperature=1.0,
      top_k=0,
      top_p=1.0,
      num_return_sequences=group,
      min_new_tokens=new,
      max_new_tokens=new,
      **options,
    )

  ways = {'float32': lambda: run(whole)}
  if contests.multiplies_bf16():
    low = copy.deepcopy(whole).to(torch.bfloat16)
    ways['bfloat16'] = lambda: run(low)
  return ways


def beam_search(
  config: LMConfig, prompts: np.ndarray, tokens: np.ndarray, beam: int
) -> dict[str, Callable[[], None]]:
  """Returns a constrained `generate` on a Qwen3 of this shape, by precision.

  Args:
    config: the shape.
    prompts: int [Q, P].
    tokens: int [I, L], the items' token ids.
    beam: width.
  """
  shape = transformers.Qwen3Config(
    vocab_size=config.vocab_size,
    hidden_size=config.width,
    intermediate_size=config.mlp_dim,
    num_hidden_layers=config.layers,
    num_attention_heads=config.heads,
    num_key_value_heads=config.kv_heads,
    head_dim=config.head_dim,
    tie_word_embeddings=config.tie_embeddings,
    eos_token_id=None,
    pad_token_id=0,
  )
  torch.manual_seed(0)
  model = transformers.Qwen3ForCausalLM(shape).eval()
  trie: dict = {}
  for row in tokens.tolist():
    node = trie
    for token in row:
      node = node.setdefault(token, {})
  length = prompts.shape[1]
  ids = torch.tensor(prompts)

  def allowed(_, sequence):
    node = trie
    for token in sequence[length:].tolist():
      node = node.get(token, {})
    return list(node) or [0]

  @torch.inference_mode()
  def run(model):
    model.generate(
      ids,
      attention_mask=torch.ones_like(ids),
      num_beams=beam,
      num_return_sequences=beam,
      max_new_tokens=tokens.shape[1],
      do_sample=False,
      prefix_allowed_tokens_fn=allowed,
    )

  low = copy.deepcopy(model).to(torch.bfloat16)
  return {'float32': lambda: run(model), 'bfloat16': lambda: run(low)}


def training(
  config: LMConfig, tokens: np.ndarray
) -> dict[str, Callable[[], None]]:
  """Returns steps of AdamW on next tokens, by precision, compiled or not.

  Args:
    config: the shape.
    tokens: int [B, T].
  """
  ids = torch.tensor(tokens, dtype=torch.long)
  ways = {}

  def add(name, compiled, bf16):
    network = model(config).train()
    forward = torch.compile(network) if compiled else network
    adam = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def run():
      with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
      adam.zero_grad(set_to_none=True)
      loss.backward()
      adam.step()

    ways[name] = run

  add('float32', False, False)
  if contests.multiplies_bf16():
    add('autocast to bfloat16', False, True)
    add('autocast to bfloat16, compiled', True, True)
  else:
    add('float32, compiled', True, False)
  return ways


def reading(size: int) -> Callable[[], None]:
  """Returns a pass over `size` bytes of memory, for the bandwidth."""
  x = torch.ones(size // 4)
  return lambda: x.sum()
