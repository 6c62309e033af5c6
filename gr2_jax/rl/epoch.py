"""An epoch of RL, and what to say of one in which no group qualified.

An epoch is one pass over the prompts: as many of them, sampled one after the
other, as there are lists. After one in which no group qualified the run ends at
the next checkpoint; the log and `summary.json` (`ended`) give the reason.
"""

from collections.abc import Mapping, Sequence

from gr2_jax.rl.config import RLConfig


def barren_prompts(
  records: Sequence[Mapping[str, float]], config: RLConfig
) -> int:
  """Counts the prompts sampled since a group last qualified.

  Args:
    records: of `metrics.jsonl`, whose values are means over steps.
    config: the settings of the run.

  Returns:
    The count; exact where each step has its record, and at most the steps of a
    record too low.
  """
  count, before = 0, 0
  for record in records:
    if 'rounds' not in record:
      continue
    rounds = record['rounds'] * (record['step'] - before)
    count += round(rounds * config.prompts_per_round)
    before = record['step']
    if record['fill_rate'] > 0:
      count = 0
  return count


def message(count: int, steps: int, updates: int, config: RLConfig) -> str:
  """Explains that a run ended because no group qualified.

  Args:
    count: of `barren_prompts`.
    steps: RL steps done.
    updates: updates that the weights have seen.
    config: the settings of the run.
  """
  return (
    f'RL ended after {steps} of {config.steps} steps and {updates} updates: '
    f'among the answers to the last {count} prompts no group had rank rewards '
    'that differ, so nothing could be learned, and the weights are those of '
    'an earlier update. Raise rl.group_size or rl.temperature, or check '
    'valid_rate and identity_rate in metrics.jsonl: the policy answers all '
    'alike.'
  )
