"""How much may be asked of a server that costs money."""

import pathlib

from gr2_jax.teacher import journal


class BudgetError(RuntimeError):
  """The budget is spent; what was answered is kept."""


class Budget:
  """Requests and tokens: what may be spent and what is."""

  def __init__(
    self, max_requests: int, max_tokens: int, requests: int, tokens: int
  ):
    """Starts to count.

    Args:
      max_requests: requests that may be started, tries again included; 0 for
        no limit.
      max_tokens: tokens of prompts and answers; 0 for no limit. No request is
        started once as many are spent, so that it is exceeded by those of the
        requests under way at most.
      requests: spent by earlier runs.
      tokens: spent by earlier runs.
    """
    self._max_requests = max_requests
    self._max_tokens = max_tokens
    self.requests = requests
    self.tokens = tokens

  def begin(self) -> bool:
    """Books one request, or says by False that the budget is spent."""
    if 0 < self._max_requests <= self.requests:
      return False
    if 0 < self._max_tokens <= self.tokens:
      return False
    self.requests += 1
    return True

  @property
  def counts_tokens(self) -> bool:
    """Whether tokens are limited."""
    return self._max_tokens > 0

  def error(self) -> BudgetError:
    """Returns what is said when the budget is spent."""
    return BudgetError(
      f'The budget is spent: {self.requests} requests (endpoint.max_requests='
      f'{self._max_requests or "no limit"}) and {self.tokens} tokens '
      f'(endpoint.max_tokens={self._max_tokens or "no limit"}). All answers '
      'are kept. Raise what is spent and start the same command again: it '
      'asks only for what is missing.'
    )


def spent(directory: pathlib.Path, model: str) -> tuple[int, int]:
  """Counts what a model's answers in the journals took.

  Args:
    directory: of `journal.Journal`; it may be missing.
    model: whose answers.

  Returns:
    (requests that were answered, tokens of prompts and answers).
  """
  requests = tokens = 0
  for path in sorted(directory.glob('*.jsonl')):
    lines = journal.read(path)
    head = next(lines, {}).get('identity', {})
    if head.get('identity', {}).get('model') != model:
      continue
    for line in lines:
      requests += 1
      tokens += line.get('prompt_tokens', 0) + line.get('completion_tokens', 0)
  return requests, tokens
