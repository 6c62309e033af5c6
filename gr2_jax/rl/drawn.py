"""Rankings that were drawn, and mini-batches of them.

Letters: Q prompts, G rankings, K candidates, S words, A allowed ids.
"""

import functools

import flax.struct
import jax

from gr2_jax import sharding
from gr2_jax.rl.rollout import PromptBatch


@flax.struct.dataclass
class Words:
  """Explanations before the rankings.

  Attributes:
    tokens: int32 [Q, G, S], `open`, words and `top`, right-padded.
    written: bool [Q, G, S], their tokens.
    allowed: int32 [Q, G, S, A], ids each place could take; see the sampler.
    sampler_logps: float32 [Q, G, S], of the sampler.
    old_logps: float32 [Q, G, S], of the same policy by the trainer's program.
  """

  tokens: jax.Array
  written: jax.Array
  allowed: jax.Array
  sampler_logps: jax.Array
  old_logps: jax.Array


@flax.struct.dataclass
class Rankings:
  """G rankings of each list; the arrays that an update reads.

  Attributes:
    lists: prompts and candidates.
    words: what was written before, or None.
    order: int32 [Q, G, K], the candidate on each place, padding last.
    old_logps: float32 [Q, G, K], of each place under the policy that drew it.
    mask: bool [Q, G, K], places that learn.
    advantages: float32 [Q, G].
    weight: float32 [Q], 0 for a list whose rank rewards are equal within each
      half.
  """

  lists: PromptBatch
  words: Words | None
  order: jax.Array
  old_logps: jax.Array
  mask: jax.Array
  advantages: jax.Array
  weight: jax.Array


@functools.partial(jax.jit, static_argnames='count')
def part(drawn: Rankings, index: jax.Array, count: int) -> Rankings:
  """Takes a mini-batch: every `count`-th list, from `index` on.

  Args:
    drawn: rankings of Q lists.
    index: which part; traced.
    count: number of mini-batches; divides Q.

  Returns:
    Those of Q / count lists.
  """

  def take(x: jax.Array) -> jax.Array:
    rows = x.reshape(x.shape[0] // count, count, *x.shape[1:])
    rows = jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False)
    return sharding.constrain(rows, 'batch', *(None,) * (rows.ndim - 1))

  return jax.tree.map(take, drawn)
