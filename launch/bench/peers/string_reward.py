"""The reward of a list as users of other trainers write it: on strings.

The peer of the group `rl`, and the reward function that it gives to TRL. It
does the arithmetic of `gr2_jax.rl`, as `tests/launch/bench/test_rl.py` holds.
"""

import json
import re
import statistics

_CODE = re.compile(r'<s_[a-z]_(\d+)>')


def rewards(
  completions: list[str],
  candidates: list[list[list[int]]],
  target: list[int],
  alpha: float = 0.2,
  invalid: float = -1.0,
  **_,
) -> list[float]:
  """Rewards answers; the form that TRL calls.

  Args:
    completions: decoded answers.
    candidates: of each answer, the codes [K, L] in pre-rank order.
    target: of each answer, the 0-based place of the true item among them.
    alpha: weight of the format reward.
    invalid: reward of what is no permutation.
    **_: what TRL passes besides, unread.

  Returns:
    The promotion of the true item, with the conditional format reward.
  """
  return [
    _reward(text, listed, place, alpha, invalid)
    for text, listed, place in zip(completions, candidates, target, strict=True)
  ]


def _reward(
  text: str,
  candidates: list[list[int]],
  target: int,
  alpha: float,
  invalid: float,
) -> float:
  try:
    answer = json.loads(text)
    ranked = [_codes(sid) for sid in answer['recommendations']]
  except (json.JSONDecodeError, KeyError, TypeError):
    return invalid
  if sorted(ranked) != sorted(candidates):
    return invalid
  before, after = target + 1, ranked.index(candidates[target]) + 1
  gain = (before - after) / len(candidates)
  deserved = gain > 0 or before == after == 1
  return gain + alpha if deserved else gain


def _codes(sid: str) -> list[int]:
  return [int(code) for code in _CODE.findall(sid)]


def advantages(rewards: list[float], group: int) -> list[float]:
  """Centres and scales rewards within each group of `group` answers."""
  found = []
  for start in range(0, len(rewards), group):
    part = rewards[start : start + group]
    mean, spread = statistics.fmean(part), statistics.pstdev(part)
    found += [(reward - mean) / (spread + 1e-6) for reward in part]
  return found


def has_variance(rewards: list[float], group: int) -> list[bool]:
  """Returns for each group of `group` answers whether its rewards differ."""
  parts = (rewards[i : i + group] for i in range(0, len(rewards), group))
  return [max(part) > min(part) for part in parts]
