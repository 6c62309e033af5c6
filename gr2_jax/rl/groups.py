"""Dynamic sampling on fixed shapes: a buffer of groups with weights.

A step keeps only groups whose rank rewards differ (a group without variance
has no advantage). What it keeps goes into the next free places of a buffer of
Q groups; places that stay free have weight 0 and leave the loss by their mask.
Whatever the fill, the shapes are the same: nothing recompiles, nothing raises.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax import sharding


@flax.struct.dataclass
class Groups:
  """Q prompts with G answers each; the arrays that an update reads.

  Attributes:
    prompt: int32 [Q, P], right-padded.
    prompt_valid: bool [Q, P].
    tokens: int32 [Q, G, S].
    old_logps: float32 [Q, G, S], of the sampler (behaviour policy).
    mask: bool [Q, G, S], generated tokens that learn (`RLConfig.credit`).
    allowed: int32 [Q, G, S, A], ids each position could take; see the sampler.
    advantages: float32 [Q, G].
    weight: float32 [Q], 1 for a group to train on, 0 for a free place.
  """

  prompt: jax.Array
  prompt_valid: jax.Array
  tokens: jax.Array
  old_logps: jax.Array
  mask: jax.Array
  allowed: jax.Array
  advantages: jax.Array
  weight: jax.Array


def has_variance(rank_rewards: jax.Array) -> jax.Array:
  """Says which groups teach anything.

  Args:
    rank_rewards: float [Q, G], -1 for invalid answers. Never the shaped reward:
      the overlong penalty alone would keep every group.

  Returns:
    bool [Q].
  """
  return rank_rewards.max(axis=1) > rank_rewards.min(axis=1)


@functools.partial(jax.jit, static_argnames='prompt_length')
def empty(like: Groups, prompt_length: int) -> Groups:
  """Makes a buffer whose places are all free.

  Args:
    like: groups whose shapes it takes.
    prompt_length: P of the buffer, the longest prompt bucket.

  Returns:
    Groups of zeros.
  """
  like = _widen(like, prompt_length)
  return _split_over_devices(jax.tree.map(jnp.zeros_like, like))


@jax.jit
def fill(buffer: Groups, new: Groups) -> Groups:
  """Puts groups into the free places of a buffer, in order.

  Args:
    buffer: groups; its places are taken from the front.
    new: groups of this round, with weight 0 for those to leave out. Their
      prompts may be shorter than the buffer's. What no longer fits is dropped:
      it would be off-policy in the next step.

  Returns:
    The buffer with more places taken.
  """
  new = _widen(new, buffer.prompt.shape[1])
  size = buffer.weight.shape[0]
  keep = new.weight > 0
  taken = (buffer.weight > 0).sum()
  place = taken + jnp.cumsum(keep) - 1
  place = jnp.where(keep & (place < size), place, size)
  return _split_over_devices(
    jax.tree.map(lambda old, x: old.at[place].set(x, mode='drop'), buffer, new)
  )


@functools.partial(jax.jit, static_argnames=('parts', 'prompt_length'))
def part(
  groups: Groups, index: jax.Array, parts: int, prompt_length: int
) -> Groups:
  """Takes a mini-batch: every `parts`-th group, from `index` on.

  A stride, not a block: a half-filled buffer fills all its mini-batches alike.

  Args:
    groups: Q groups.
    index: which part; traced.
    parts: number of mini-batches; divides Q.
    prompt_length: prompts are cut to it, the bucket of the longest.

  Returns:
    Q / parts groups.
  """

  def take(x: jax.Array) -> jax.Array:
    rows = x.reshape((x.shape[0] // parts, parts, *x.shape[1:]))
    return jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False)

  groups = groups.replace(
    prompt=groups.prompt[:, :prompt_length],
    prompt_valid=groups.prompt_valid[:, :prompt_length],
  )
  return _split_over_devices(jax.tree.map(take, groups))


def _split_over_devices(groups: Groups) -> Groups:
  return jax.tree.map(
    lambda x: sharding.constrain(x, 'batch', *(None,) * (x.ndim - 1)), groups
  )


def _widen(groups: Groups, length: int) -> Groups:
  missing = length - groups.prompt.shape[1]
  pad = lambda x: jnp.pad(x, ((0, 0), (0, missing)))
  return groups.replace(
    prompt=pad(groups.prompt), prompt_valid=pad(groups.prompt_valid)
  )
