"""The settings, the questions and the answers of a ranker."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import ml_collections
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.rl.rollout import PromptBatch
from gr2_jax.run import artifacts
from gr2_jax.text import semantic_ids

# How a ranker answers: with an explanation, without, or by the paper's list,
# token by token. A model without utilities answers by lists only.
EXPLAINED, DIRECT, LIST = 'explained', 'direct', 'list'
MODES = (EXPLAINED, DIRECT, LIST)


# `answer.ranking`, of a whole run.
LIKELIHOOD = 'likelihood'


def is_by_list(config: ml_collections.ConfigDict) -> bool:
  """Returns whether a run ranks by the paper's lists, and not by utilities.

  Args:
    config: of the run.

  Raises:
    ValueError: `answer.ranking` is neither.
  """
  asked = config.answer.ranking
  if asked not in (LIKELIHOOD, LIST):
    raise ValueError(
      f"answer.ranking = {asked!r}: choose '{LIKELIHOOD}' or '{LIST}'."
    )
  return asked == LIST


@dataclasses.dataclass(frozen=True)
class AnswerConfig:
  """How answers are decoded: the fields of the same names in `config.rl`.

  Attributes:
    max_new_tokens: the longest answer.
    explanation_tokens: budget of the explanation where `constrain` holds.
    constrain: whether the list can only be a permutation of the candidates.
  """

  max_new_tokens: int
  explanation_tokens: int
  constrain: bool


@dataclasses.dataclass(frozen=True)
class Ranking:
  """One re-ranked list.

  Attributes:
    order: int32 [k], item indices, best first; the incoming order if the answer
      is not valid.
    explanation: what the model wrote before the list.
    explanation_titles: the same with titles in place of semantic IDs.
    valid: whether the answer is a permutation of the candidates.
    tokens: length of the answer; 0 where nothing was decoded.
    prompt_tokens: length of the prompt.
    utilities: float32 [k], of the candidates as given; None of a list that was
      written token by token.
    alone: int32 [k], the order by likelihood and incoming order alone; None as
      above.
    scores: float32 [k], the utilities in the order of `order`; None as above.
  """

  order: np.ndarray
  explanation: str
  explanation_titles: str
  valid: bool
  tokens: int
  prompt_tokens: int
  utilities: np.ndarray | None = None
  alone: np.ndarray | None = None
  scores: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Asked:
  """N lists with their prompts.

  Attributes:
    written: N prompts.
    longest: tokens of the longest one that can be.
    citable: int32 [N, M], -1 pads.
    padded: int32 [N, K], the candidates, -1 pads.
    direct: N direct prompts beside explained ones, or None.
    longest_direct: tokens of the longest of those that can be.
  """

  written: list[list[int]]
  longest: int
  citable: np.ndarray
  padded: np.ndarray
  direct: list[list[int]] | None = None
  longest_direct: int = 0

  def __len__(self) -> int:
    """Returns the number of lists N."""
    return len(self.written)

  def batch(
    self,
    rows: Sequence[int],
    columns: np.ndarray,
    size: int,
    store: artifacts.Artifacts,
    mesh: jax.sharding.Mesh,
  ) -> PromptBatch:
    """Puts lists on the mesh, filled up with empty ones.

    Args:
      rows: which n lists.
      columns: float32 [n, K, F], their evidence.
      size: lists of the batch; the mesh splits it.
      store: gives the semantic IDs.
      mesh: the mesh.
    """
    padded, citable = self.padded[rows], self.citable[rows]

    chosen = [self.written[row] for row in rows]
    width = padding.width(max(map(len, chosen)), self.longest)
    tokens, valid = padding.batch(chosen, width, store.vocab.pad)
    beside, width = [[]] * len(rows), 0
    if self.direct is not None:
      # All of one length: explained ones have several already.
      beside = [self.direct[row] for row in rows]
      width = padding.widths(self.longest_direct)[-1]
    history, history_valid = padding.batch(beside, width, store.vocab.pad)
    sids = lambda items: store.sids[np.maximum(items, 0)]
    zeros = np.zeros(len(rows), np.int32)
    lists = PromptBatch(
      prompt=tokens,
      prompt_valid=valid,
      candidate_sids=sids(padded),
      candidate_mask=padded >= 0,
      citable_sids=sids(citable),
      citable_mask=citable >= 0,
      target=zeros,
      grades=np.zeros_like(padded),
      row=zeros,
      features=columns,
      history=history,
      history_valid=history_valid,
    )
    return sharding.shard_batch(mesh, padding.fill(lists, size))


def check(
  candidates: Sequence[np.ndarray],
  longest: int | None,
  **each: Sequence | None,
) -> None:
  """Refuses lists that cannot be ranked.

  Args:
    candidates: N lists.
    longest: most candidates of a list; None where prompts show none.
    **each: by name, what there is one of a list, or None.

  Raises:
    ValueError: another number of something than of lists, or a list that is too
      short or too long.
  """
  for name, given in each.items():
    if given is not None and len(given) != len(candidates):
      raise ValueError(
        f'{len(given)} {name} for {len(candidates)} lists; give one a list.'
      )
  for number, items in enumerate(candidates):
    if not len(items):
      raise ValueError(f'List {number} has no candidate; give one or more.')
    check_length(len(items), longest, f'List {number}')


def check_length(count: int, longest: int | None, where: str) -> None:
  """Refuses a list that a prompt cannot show.

  Args:
    count: its candidates.
    longest: most candidates of a list; None where prompts show none.
    where: what to call it.

  Raises:
    ValueError: it is too long.
  """
  if longest is not None and count > longest:
    raise ValueError(
      f'{where}: {count} candidates; the model was trained for at most '
      f'{longest} (text.prompt.max_candidates). Give fewer, or rank without '
      "explanation (mode='direct')."
    )


def read(
  store: artifacts.Artifacts,
  items: np.ndarray,
  found: Mapping[str, np.ndarray],
  prompt_tokens: int,
  shown: np.ndarray,
) -> Ranking:
  """Reads what was decoded for one list.

  Args:
    store: gives vocabulary and titles.
    items: int [k], the candidates in their incoming order.
    found: of `decoding`, one row.
    prompt_tokens: length of the prompt.
    shown: int [m], the items that it shows; -1 pads.

  Returns:
    The ranking.
  """
  items, count = np.asarray(items, np.int32), len(items)
  sound = bool(found.get('valid', True))
  turn = np.arange(count)
  if sound:
    turn = np.argsort(found['places'][:count], kind='stable')
  text = []
  if 'tokens' in found:
    text = found['tokens'][found['mask']].tolist()
  explanation = _explanation(store, text)
  titles = store.titles(explanation, shown[shown >= 0])
  values = alone = sorted_values = None
  if 'utilities' in found:
    values = found['utilities'][:count]
    sorted_values = values[turn]
    alone = items[np.argsort(-found['alone'][:count], kind='stable')]
  return Ranking(
    order=items[turn],
    explanation=explanation,
    explanation_titles=semantic_ids.with_titles(explanation, titles),
    valid=sound,
    tokens=len(text),
    prompt_tokens=prompt_tokens,
    utilities=values,
    alone=alone,
    scores=sorted_values,
  )


def _explanation(store: artifacts.Artifacts, text: list[int]) -> str:
  if not text:
    return ''
  fmt = store.vocab.answer_format()
  end = text.index(fmt.mid) if fmt.mid in text else len(text)
  start = 1 if text[:1] == [fmt.open] else 0
  return store.vocab.decode(text[start:end]).strip()
