"""Dynamic sampling on fixed shapes: a buffer of groups with weights.

A step keeps only groups whose rank rewards differ (a group without variance
has no advantage). What it keeps goes into the next free places of a buffer; the
first Q places are what it trains on, and what lies behind them waits for the
next step, a step older. Places that stay free have weight 0 and leave the loss
by their mask. Whatever the fill, the shapes are the same: nothing recompiles,
nothing raises. What waits is used first, and dropped after `rl.max_staleness`
steps; checkpoints have it. Its log-probabilities stay those of the policy that
sampled it.
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
    sampler_logps: float32 [Q, G, S], of the sampler (behaviour policy).
    old_logps: float32 [Q, G, S], what the ratio starts from: the sampler's, or
      of the same policy by the trainer's program (`RLConfig.old_logps`).
    mask: bool [Q, G, S], generated tokens that learn (`RLConfig.credit`).
    allowed: int32 [Q, G, S, A], ids each position could take; see the sampler.
    advantages: float32 [Q, G].
    weight: float32 [Q], 1 for a group to train on, 0 for a free place.
    age: int32 [Q], RL steps since the group was sampled: its policy is that
      much older.
  """

  prompt: jax.Array
  prompt_valid: jax.Array
  tokens: jax.Array
  sampler_logps: jax.Array
  old_logps: jax.Array
  mask: jax.Array
  allowed: jax.Array
  advantages: jax.Array
  weight: jax.Array
  age: jax.Array


def has_variance(rank_rewards: jax.Array) -> jax.Array:
  """Returns which groups teach anything.

  Args:
    rank_rewards: float [Q, G], `RLConfig.invalid` for invalid answers. With 0
      a group of invalid answers and kept ranks has no variance: what differs
      in format alone teaches nothing. Never the shaped reward: the overlong
      penalty alone would keep every group.

  Returns:
    bool [Q].
  """
  # NDCG of orders that differ only among equal grades differs by rounding;
  # what differs at all differs by more (1/K, a pair, a place of 50).
  return rank_rewards.max(axis=1) - rank_rewards.min(axis=1) > 1e-6


@functools.partial(
  jax.jit,
  static_argnames=('places', 'group_size', 'slots', 'ids', 'prompt_length'),
)
def empty(
  places: int, group_size: int, slots: int, ids: int, prompt_length: int
) -> Groups:
  """Makes a buffer whose places are all free.

  Args:
    places: groups that it can hold.
    group_size: G.
    slots: S, tokens of an answer.
    ids: A, allowed ids of a place.
    prompt_length: P of the buffer, the longest prompt bucket.

  Returns:
    Groups of zeros.
  """
  prompt, answers = (places, prompt_length), (places, group_size, slots)
  return _split_over_devices(
    Groups(
      prompt=jnp.zeros(prompt, jnp.int32),
      prompt_valid=jnp.zeros(prompt, bool),
      tokens=jnp.zeros(answers, jnp.int32),
      sampler_logps=jnp.zeros(answers, jnp.float32),
      old_logps=jnp.zeros(answers, jnp.float32),
      mask=jnp.zeros(answers, bool),
      allowed=jnp.zeros((*answers, ids), jnp.int32),
      advantages=jnp.zeros(answers[:2], jnp.float32),
      weight=jnp.zeros(places, jnp.float32),
      age=jnp.zeros(places, jnp.int32),
    )
  )


@jax.jit
def fill(buffer: Groups, new: Groups) -> Groups:
  """Puts groups into the free places of a buffer, in order.

  Args:
    buffer: groups; its places are taken from the front.
    new: groups of this round, with weight 0 for those to leave out. Their
      prompts may be shorter than the buffer's. What no longer fits is dropped:
      the trainer's buffer holds what a step can leave.

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


@functools.partial(jax.jit, static_argnames='size')
def count(buffer: Groups, size: int) -> tuple[jax.Array, jax.Array]:
  """Counts what a step would train on.

  Args:
    buffer: groups.
    size: Q, how many a step trains on.

  Returns:
    int32 scalars: the groups among the first `size` places, and the tokens of
    the longest prompt there.
  """
  taken = (buffer.weight[:size] > 0).sum(dtype=jnp.int32)
  return taken, buffer.prompt_valid[:size].sum(-1, dtype=jnp.int32).max()


@functools.partial(jax.jit, static_argnames=('used', 'max_age'))
def carry(
  buffer: Groups, used: int, max_age: int
) -> tuple[Groups, dict[str, tuple[jax.Array, jax.Array]]]:
  """Makes the buffer that the next step starts from.

  Args:
    buffer: groups.
    used: Q, how many of the first places were trained on.
    max_age: in steps; groups that would be older are dropped.

  Returns:
    (the other groups at the front, in order and a step older; metrics of pairs:
    `left_over`, how many they are, and `stale_dropped`).
  """
  size = buffer.weight.shape[0]
  rest = (buffer.weight > 0) & (jnp.arange(size) >= used)
  buffer = buffer.replace(age=buffer.age + 1)
  keep = rest & (buffer.age <= max_age)
  place = jnp.where(keep, jnp.cumsum(keep) - 1, size)
  moved = jax.tree.map(
    lambda x: jnp.zeros_like(x).at[place].set(x, mode='drop'), buffer
  )
  one = jnp.ones((), jnp.float32)
  counts = {'left_over': keep, 'stale_dropped': rest & ~keep}
  return _split_over_devices(moved), {
    name: (chosen.sum(dtype=jnp.float32), one)
    for name, chosen in counts.items()
  }


@functools.partial(jax.jit, static_argnames=('size', 'parts', 'prompt_length'))
def part(
  buffer: Groups, index: jax.Array, size: int, parts: int, prompt_length: int
) -> Groups:
  """Takes a mini-batch: every `parts`-th group, from `index` on.

  A stride, not a block: a half-filled buffer fills all its mini-batches alike.

  Args:
    buffer: groups.
    index: which part; traced.
    size: Q, groups at the front of the buffer that a step trains on.
    parts: number of mini-batches; divides Q.
    prompt_length: prompts are cut to it, the bucket of the longest.

  Returns:
    Q / parts groups.
  """

  def take(x: jax.Array) -> jax.Array:
    rows = x[:size].reshape((size // parts, parts, *x.shape[1:]))
    return jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False)

  buffer = buffer.replace(
    prompt=buffer.prompt[:, :prompt_length],
    prompt_valid=buffer.prompt_valid[:, :prompt_length],
  )
  return _split_over_devices(jax.tree.map(take, buffer))


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
