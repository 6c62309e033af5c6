"""A made-up world whose best order is known, to test rewards in (our choice).

Items stand in groups on a ring; a user's next item is of the group `stride`
places behind that of the last one (with 0: a user stays in one group). So for
any history the best order of candidates is known: the wanted group first, then
the groups in the order of the ring. Lists hold one item a group, among them the
one that the user took, and are served in that order with noise: a pre-ranker
that is right about much and wrong about the first place.
"""

import dataclasses

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import raw

LEVELS = 2  # Semantic IDs are (group, member).


@dataclasses.dataclass(frozen=True)
class WorldConfig:
  """The size of a world and the noise of its pre-ranker.

  Attributes:
    groups: groups on the ring.
    members: items a group.
    users: U, in all.
    length: items that each user took, no item twice.
    k: K, candidates a list, each of another group.
    stride: places on the ring from one item of a user to the next.
    noise: standard deviation, in places, of what the pre-ranker adds to an
      item's place in the best order; 0 serves the best order.
    seed: of all that is drawn.
  """

  groups: int = 10
  members: int = 6
  users: int = 2000
  length: int = 5
  k: int = 8
  stride: int = 0
  noise: float = 1.5
  seed: int = 0

  def __post_init__(self):
    """Refuses worlds that cannot be built."""
    checks = {
      'groups': (self.groups >= 2, 'at least 2'),
      'users': (self.users >= 1, 'at least 1'),
      'length': (self.length >= 2, 'at least 2: a history and a target'),
      'k': (2 <= self.k <= self.groups, f'2 to groups = {self.groups}'),
      'noise': (self.noise >= 0, 'at least 0'),
      'members': (
        self.members >= self._visits(),
        f'at least {self._visits()}: so often a user comes to one group',
      ),
    }
    for name, (holds, remedy) in checks.items():
      if not holds:
        value = getattr(self, name)
        raise ValueError(f'data.world.{name} = {value!r} must be {remedy}.')

  def _visits(self) -> int:
    """How often a sequence comes to the same group."""
    ring = self.groups // np.gcd(self.groups, self.stride)
    return -(-self.length // int(ring))

  @property
  def codes(self) -> int:
    """C, codes that a level of the semantic IDs needs."""
    return max(self.groups, self.members)


def sids(cfg: WorldConfig) -> np.ndarray:
  """Returns the semantic IDs, int32 [I, 2]: group and member of each item."""
  index = np.arange(cfg.groups * cfg.members)
  return np.stack(np.divmod(index, cfg.members), axis=1).astype(np.int32)


def best_order(
  cfg: WorldConfig, history: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
  """Orders candidates as one who knows the rule would.

  Args:
    cfg: the world.
    history: item indices, oldest first, at least one.
    candidates: item indices [K], each of another group.

  Returns:
    The candidates, best first, [K].
  """
  candidates = np.asarray(candidates)
  return candidates[np.argsort(_distance(cfg, history[-1], candidates))]


def _distance(
  cfg: WorldConfig, last: np.ndarray, items: np.ndarray
) -> np.ndarray:
  """Places on the ring from the wanted group to that of each item."""
  wanted = last // cfg.members + cfg.stride
  return (items // cfg.members - wanted) % cfg.groups


def read(cfg: WorldConfig) -> raw.Raw:
  """Draws the users' sequences and, for each place but the first, a list.

  Args:
    cfg: the world.

  Returns:
    Items, interactions (the timestamp is the place in the sequence) and slates
    in pre-rank order, with label 1 for the item that stands at the place of
    the slate's timestamp in the user's sequence and 0 for the others.
  """
  rng = np.random.default_rng(cfg.seed)
  items = [
    dataset_lib.Item(f'i{i:06d}', f'Item {m} of {g}', (f'Group {g}',))
    for i, (g, m) in enumerate(sids(cfg).tolist())
  ]
  interactions, slates = [], []
  for user in range(cfg.users):
    name = f'u{user:06d}'
    sequence = _sequence(cfg, rng)
    for place, item in enumerate(sequence):
      interactions.append(raw.Interaction(name, items[item].item_id, place))
      if place:
        shown = _slate(cfg, sequence[place - 1], item, rng)
        ids = tuple(items[i].item_id for i in shown)
        labels = tuple(int(i == item) for i in shown)
        slates.append(raw.RawSlate(name, place, ids, labels))
  return raw.Raw(items, interactions, slates)


def _sequence(cfg: WorldConfig, rng: np.random.Generator) -> np.ndarray:
  """Draws one user's items, int [length]."""
  places = rng.integers(cfg.groups) + cfg.stride * np.arange(cfg.length)
  # Each group's members in an order of the user's own: none comes twice.
  orders = rng.permuted(
    np.tile(np.arange(cfg.members), (cfg.groups, 1)), axis=1
  )
  groups = places % cfg.groups
  visit = [int((groups[:i] == g).sum()) for i, g in enumerate(groups)]
  return groups * cfg.members + orders[groups, visit]


def _slate(
  cfg: WorldConfig, last: int, target: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws the list that holds a target, in pre-rank order, int [K]."""
  groups = np.arange(cfg.groups)
  others = rng.permutation(groups[groups != target // cfg.members])[: cfg.k - 1]
  members = rng.integers(cfg.members, size=cfg.k - 1)
  items = np.append(others * cfg.members + members, target)
  best = items[np.argsort(_distance(cfg, last, items))]
  return best[np.argsort(np.arange(cfg.k) + cfg.noise * rng.normal(size=cfg.k))]
