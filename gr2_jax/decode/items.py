"""The items that an answer may name.

Letters: Q prompts, K candidates, M citable items, L levels, A allowed ids.
"""

import flax.struct
import jax


@flax.struct.dataclass
class Items:
  """What answers may name.

  Attributes:
    candidate_sids: int32 [Q, K, L] codes in pre-rank order.
    candidate_mask: bool [Q, K], False for the padding of short lists.
    citable_sids: int32 [Q, M, L] codes of what the words may cite: the items
      that the prompt shows, in any order, some perhaps twice.
    citable_mask: bool [Q, M], False for padding.
  """

  candidate_sids: jax.Array
  candidate_mask: jax.Array
  citable_sids: jax.Array
  citable_mask: jax.Array

  @property
  def ids(self) -> int:
    """A, the most ids that a place may be limited to."""
    return allowed_ids(
      self.candidate_mask.shape[-1], self.citable_mask.shape[-1]
    )


def allowed_ids(num_candidates: int, num_citable: int) -> int:
  """Returns A, the most ids that a place may be limited to."""
  return max(num_candidates, num_citable, 1)
