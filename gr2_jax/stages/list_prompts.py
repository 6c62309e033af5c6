"""The lists that SFT and RL train on, with their prompts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax.data import padding
from gr2_jax.rank import linear
from gr2_jax.rl import prompt_set
from gr2_jax.run import artifacts
from gr2_jax.stages import sft_loss
from gr2_jax.text import encoding


def direct_prompts(
  store: artifacts.Artifacts, lists: artifacts.CandidateLists
) -> prompt_set.PromptSet:
  """Writes the direct prompts of lists: the retriever's own.

  Args:
    store: the run's artifacts.
    lists: candidate lists that hold their target.

  Returns:
    The set.
  """
  prompts = [
    store.prompter.retrieval(store.history(user, position))
    for user, position in zip(lists.user, lists.position, strict=True)
  ]
  return prompt_set.PromptSet(
    prompts,
    lists.candidates,
    store.sids,
    lists.target,
    pad=store.vocab.pad,
    grades=lists.grades,
    features=lists.features,
  )


def rl_lists(
  store: artifacts.Artifacts, which: str
) -> artifacts.CandidateLists:
  """Returns the lists with a target that RL trains on; see `RLConfig.lists`."""
  return store.rl_lists() if which == 'unseen' else store.lists(which).hits()


class Batches:
  """Endless batches of what rows give; resumable."""

  def __init__(self, gather: Callable[[np.ndarray], Any], rows: Any):
    """Joins the two.

    Args:
      gather: int [B] -> batch.
      rows: of `pipeline.index_iterator`.
    """
    self._gather, self._rows = gather, rows

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> Any:
    """Returns the next batch."""
    return self._gather(next(self._rows))

  def get_state(self) -> Any:
    """Returns the place in the data."""
    return self._rows.get_state()

  def set_state(self, state: Any) -> None:
    """Goes back to a state of `get_state`."""
    self._rows.set_state(state)


@dataclasses.dataclass(frozen=True)
class ExplainedRows:
  """Lists with explained prompts and a teacher's words.

  Attributes:
    prompts: of N lists.
    words: N lists of tokens: `open`, words, `top`.
    length: S, tokens of the longest.
  """

  prompts: prompt_set.PromptSet
  words: list[list[int]]
  length: int

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.words)

  def batch(self, rows: np.ndarray) -> sft_loss.Explained:
    """Gathers lists and words, as NumPy arrays."""
    words, written = padding.batch(
      [self.words[i] for i in rows], self.length, self.prompts.pad
    )
    return sft_loss.Explained(self.prompts.batch(rows), words, written)


@dataclasses.dataclass(frozen=True)
class DistilledRows:
  """Lists without their target, with what the linear model would choose.

  Attributes:
    prompts: direct ones of N lists; their target is its first choice.
    share: float32 [N, K], how likely it chooses each candidate.
  """

  prompts: prompt_set.PromptSet
  share: np.ndarray

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.share)

  def batch(self, rows: np.ndarray) -> sft_loss.Distilled:
    """Gathers lists and choices, as NumPy arrays."""
    return sft_loss.Distilled(self.prompts.batch(rows), self.share[rows])


def distilled_rows(
  store: artifacts.Artifacts, weights: np.ndarray
) -> DistilledRows | None:
  """Labels the training lists that miss their target by the linear model.

  Args:
    store: the run's artifacts.
    weights: float [F], of the evidence columns (`rank/linear.py`).

  Returns:
    The rows; None where every list holds its target.
  """
  lists = store.lists('train')
  lists = lists.take(lists.target < 0)
  if not len(lists):
    return None
  mask = lists.candidates >= 0
  values = linear.utilities(weights, lists.features, mask)
  odds = np.exp(values - values.max(axis=1, keepdims=True))
  share = odds / odds.sum(axis=1, keepdims=True)
  chosen = dataclasses.replace(lists, target=share.argmax(axis=1))
  return DistilledRows(direct_prompts(store, chosen), share.astype(np.float32))


def explained_prompts(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  shuffled: float = 0.0,
  seed: int = 0,
) -> prompt_set.PromptSet:
  """Writes the explained prompts of lists.

  Args:
    store: the run's artifacts.
    lists: candidate lists that hold their target.
    shuffled: share of the prompts that show the candidates in random order; the
      lists themselves stay as they are.
    seed: of the orders.

  Returns:
    The set.
  """
  rng = np.random.default_rng(seed)
  prompts, citable, histories = [], [], []
  for user, position, candidates in zip(
    lists.user, lists.position, lists.candidates, strict=True
  ):
    history = store.history(user, position)
    shown = candidates[candidates >= 0]
    if rng.random() < shuffled:
      shown = rng.permutation(shown)
    prompts.append(store.prompter.rerank(history, shown))
    histories.append(store.prompter.retrieval(history))
    citable.append(store.prompter.citable(history, shown))
  return prompt_set.PromptSet(
    prompts,
    lists.candidates,
    store.sids,
    lists.target,
    pad=store.vocab.pad,
    grades=lists.grades,
    citable=np.stack(citable),
    features=lists.features,
    histories=histories,
  )


def explained_rows(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
  traces: Sequence[Mapping],
  shuffled: float,
  seed: int,
) -> ExplainedRows:
  """Joins traces with the lists that they explain.

  Args:
    store: the run's artifacts.
    lists: where the traces' lists come from.
    traces: lines of `traces.jsonl`.
    shuffled: as in `explained_prompts`.
    seed: of the orders.

  Returns:
    The rows.

  Raises:
    ValueError: a trace of another list.
  """
  places = {
    pair: row
    for row, pair in enumerate(
      zip(lists.user.tolist(), lists.position.tolist(), strict=True)
    )
  }
  wanted = [(trace['user'], trace['position']) for trace in traces]
  missing = [pair for pair in wanted if pair not in places]
  if missing:
    raise ValueError(
      f'{len(missing)} traces explain lists that SFT does not train on, such '
      f'as that of user {missing[0][0]} at position {missing[0][1]}: run the '
      'traces stage again.'
    )
  chosen = lists.take(np.array([places[pair] for pair in wanted], int))
  fmt = store.vocab.answer_format()
  words = []
  for trace in traces:
    tokens, _ = encoding.encode_answer(
      store.vocab, trace['explanation'], store.sids[trace['ranking']]
    )
    words.append(tokens[: tokens.index(fmt.top) + 1])
  longest = max(map(len, words))
  return ExplainedRows(
    explained_prompts(store, chosen, shuffled, seed),
    words,
    padding.round_up(longest, 8),
  )
