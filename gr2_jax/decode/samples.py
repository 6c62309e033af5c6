"""What a sampler wrote, and under which distributions.

Letters: Q prompts, G rollouts, S slots, K candidates, M citable items, A
allowed ids.
"""

import flax.struct
import jax


@flax.struct.dataclass
class Samples:
  """What was sampled.

  Attributes:
    tokens: int32 [Q, G, S], without the prompt; `pad` after the end.
    logps: float32 [Q, G, S], log-probability of each token under the tempered
      and constrained distribution, which the trainer computes again; 0 after
      the end.
    behaviour_logps: float32 [Q, G, S], the same under the distribution it was
      drawn from: the filters' too. Equal to `logps` where none acts.
    mask: bool [Q, G, S], the tokens that were generated, the last one included.
    allowed: int32 [Q, G, S, A], the ids each position could take, padded with
      -1; a row of negative numbers was free (see `constrain.allowed`). A =
      max(K, M, 1).
  """

  tokens: jax.Array
  logps: jax.Array
  behaviour_logps: jax.Array
  mask: jax.Array
  allowed: jax.Array
