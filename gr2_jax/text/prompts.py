"""Prompts of the re-ranker and of the generative retriever, as token ids.

A re-ranking prompt shows, like GR2's [P], the task, the history and all the
candidates together, every item as wrapped semantic ID, title and category path:

    <bos><|retrieve|> SID ... SID
    <|rerank|> INSTRUCTION <|history|> ITEM ... <|candidates|> ITEM ...
    ORDER <|answer|>
    ITEM = <|sid_begin|><s_a_3>...<s_d_9><|sid_end|> Toy Story (1995) | A/B/C
    ORDER = the candidates' semantic IDs once more, bare and without a gap

It begins as a retrieval prompt does, so that the model reads the history as
mid-training taught it to, and shows only the last items of it with their texts.
ORDER is our choice. Among the items, texts part the semantic IDs of
neighbours, and a small decoder did not learn to find the next candidate; side
by side it takes one step of copying.

A retrieval prompt is the history in semantic IDs, up to where the next begins:

    <bos><|retrieve|> SID ... SID <|sid_begin|>

Role tokens keep prompts short (our choice): a model that is trained from
scratch learns nothing from a constant sentence.
"""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.text import vocab as vocab_lib

# GR2's role, task and knowledge priming [P] in one sentence.
INSTRUCTION = ' Rank what comes next: similar or complementary.'


@dataclasses.dataclass(frozen=True)
class PromptConfig:
  """What a prompt shows and how long it may be; all defaults are our choice.

  Attributes:
    history_items: at most this many of the last items in a re-ranking prompt.
    max_candidates: K, the longest list [P: 10].
    title_tokens: a longer title is cut.
    category_tokens: a longer category path loses its root first.
    max_tokens: of what follows the history in semantic IDs in a re-ranking
      prompt; a longer one loses its oldest items with text first.
    retrieval_items: at most this many of the last items in a retrieval prompt.
    instruction: text after the task token; empty for none.
  """

  history_items: int = 6
  max_candidates: int = 10
  title_tokens: int = 12
  category_tokens: int = 6
  max_tokens: int = 288
  retrieval_items: int = 20
  instruction: str = INSTRUCTION

  @property
  def citable_items(self) -> int:
    """M, the most items that a re-ranking prompt shows."""
    return self.history_items + self.max_candidates

  def __post_init__(self):
    for name in ('history_items', 'max_candidates', 'retrieval_items'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'text.prompt.{name} is {getattr(self, name)}; give 1 or more.'
        )


class Prompter:
  """Writes prompts over one catalogue; every item is tokenised once.

  Attributes:
    cfg: the budgets.
    counts: of items, those with a cut title and with a cut category path.
    whole: I pairs of the tokens of an item's whole title and category path.
    texts: I lists of tokens: title and category path of each item.
    segments: I lists of tokens: wrapped semantic ID, then the text.
  """

  def __init__(
    self,
    vocab: vocab_lib.Vocab,
    items: Sequence[dataset_lib.Item],
    sids: np.ndarray,
    cfg: PromptConfig,
  ):
    """Tokenises the catalogue.

    Args:
      vocab: the vocabulary.
      items: I items.
      sids: their semantic IDs, int [I, L].
      cfg: the budgets.

    Raises:
      ValueError: other numbers of items and semantic IDs, or budgets with
        which `max_candidates` long items alone exceed `max_tokens`.
    """
    if len(items) != len(sids):
      raise ValueError(
        f'{len(items)} items, but {len(sids)} semantic IDs: both must come '
        'from the same data stage.'
      )
    self.cfg = cfg
    self.counts = {'titles_cut': 0, 'categories_cut': 0}
    self.whole: list[tuple[int, int]] = []
    self._vocab = vocab
    self._wrapped = np.zeros((0, np.shape(sids)[1] + 2), np.int32)
    self._bar = vocab.encode(' |')
    self.texts, self.segments = [], []
    self._add(items, sids)
    task, shown = map(vocab.token, ('<|rerank|>', '<|history|>'))
    self._head = [task, *vocab.encode(cfg.instruction, added='none'), shown]
    names = '<|candidates|>', '<|answer|>', '<|retrieve|>'
    self._candidates, self._answer, self._retrieve = map(vocab.token, names)
    self._check_budget()

  def grown(
    self, items: Sequence[dataset_lib.Item], sids: np.ndarray
  ) -> 'Prompter':
    """Returns a prompter that knows more items, behind those it knows.

    Args:
      items: N items; with long texts, prompts may exceed `max_tokens`.
      sids: their semantic IDs, int [N, L].
    """
    made = copy.copy(self)
    made.counts, made.whole = dict(self.counts), list(self.whole)
    made._add(items, sids)
    return made

  def rerank(
    self, history: Sequence[int] | np.ndarray, candidates: Sequence[int]
  ) -> list[int]:
    """Writes a re-ranking prompt.

    Args:
      history: item indices, oldest first; any length.
      candidates: item indices in pre-rank order, 1 to `max_candidates`.

    Returns:
      Token ids, at most `max_tokens` behind the history in semantic IDs.

    Raises:
      ValueError: no candidate or too many.
    """
    if not 1 <= len(candidates) <= self.cfg.max_candidates:
      raise ValueError(
        f'{len(candidates)} candidates; a prompt takes 1 to '
        f'{self.cfg.max_candidates} (text.prompt.max_candidates).'
      )
    body = [*self._seen(history), *self._head]
    for item in self.shown(history, candidates):
      body += self.segments[item]
    body.append(self._candidates)
    for item in candidates:
      body += self.segments[item]
    order = self._wrapped[np.asarray(candidates), 1:-1].ravel().tolist()
    return [*body, *order, self._answer]

  def dropped(
    self, history: Sequence[int] | np.ndarray, candidates: Sequence[int]
  ) -> int:
    """Returns how many items `rerank` leaves out for `max_tokens`.

    Args:
      history: as in `rerank`; of its last `history_items`.
      candidates: as in `rerank`.
    """
    last = min(len(history), self.cfg.history_items)
    return last - len(self.shown(history, candidates))

  def shown(
    self, history: Sequence[int] | np.ndarray, candidates: Sequence[int]
  ) -> list[int]:
    """Returns the items of a history that `rerank` shows, oldest first.

    Args:
      history: as in `rerank`.
      candidates: as in `rerank`; what they leave no room for is not shown.
    """
    room, kept = self.cfg.max_tokens - self._around(candidates), []
    for item in list(history[-self.cfg.history_items :])[::-1]:
      room -= len(self.segments[item])
      if room < 0:
        break
      kept.append(item)
    return kept[::-1]

  def citable(
    self, history: Sequence[int] | np.ndarray, candidates: Sequence[int]
  ) -> np.ndarray:
    """Returns what `rerank` shows with text: what an explanation may cite.

    Args:
      history: as in `rerank`.
      candidates: as in `rerank`.

    Returns:
      int32 [M], M = `history_items` + `max_candidates`; the history's first,
      some perhaps twice, -1 at the end.
    """
    items = [*self.shown(history, candidates), *candidates]
    pad = [-1] * (self.cfg.citable_items - len(items))
    return np.array([*items, *pad], np.int32)

  def retrieval(self, history: Sequence[int] | np.ndarray) -> list[int]:
    """Writes a retrieval prompt of the last `retrieval_items` items.

    Args:
      history: item indices, oldest first; any length.

    Returns:
      Token ids; the last one is `<|sid_begin|>`.
    """
    return [*self._seen(history), self._vocab.sid_begin]

  def _seen(self, history: Sequence[int] | np.ndarray) -> list[int]:
    last = history[-self.cfg.retrieval_items :]
    return self.sequence(np.asarray(last, np.int64))

  def sequence(self, items: np.ndarray) -> list[int]:
    """Writes items in the format of `retrieval`, without its last token.

    Args:
      items: item indices, int [n].

    Returns:
      2 + n * (L + 2) token ids: begin, task, and each wrapped semantic ID.
    """
    body = self._wrapped[items].ravel().tolist()
    return [self._vocab.bos, self._retrieve, *body]

  def _add(self, items: Sequence[dataset_lib.Item], sids: np.ndarray) -> None:
    ends = np.ones((len(items), 1), np.int32)
    wrapped = np.concatenate(
      [
        ends * self._vocab.sid_begin,
        self._vocab.sid_tokens(sids),
        ends * self._vocab.sid_end,
      ],
      axis=1,
    )
    texts = [self._item_text(item) for item in items]
    pairs = zip(wrapped.tolist(), texts, strict=True)
    self._wrapped = np.concatenate([self._wrapped, wrapped])
    self.texts = [*self.texts, *texts]
    self.segments = [*self.segments, *([*sid, *text] for sid, text in pairs)]

  def _item_text(self, item: dataset_lib.Item) -> list[int]:
    title = self._vocab.encode(f' {item.title}', added='none')
    self.counts['titles_cut'] += len(title) > self.cfg.title_tokens
    whole, path = self._path(item)
    self.whole.append((len(title), whole))
    return title[: self.cfg.title_tokens] + self._bar + path

  def _path(self, item: dataset_lib.Item) -> tuple[int, list[int]]:
    """Returns the length of the whole path, and what is shown of it."""
    limit = self.cfg.category_tokens
    tokens, whole = [], 0
    for root in range(len(item.categories)):
      path = category_path(item.categories[root:])
      tokens = self._vocab.encode(f' {path}', added='none')
      whole = whole or len(tokens)
      if len(tokens) <= limit:
        break
    self.counts['categories_cut'] += whole > limit
    return whole, tokens[:limit]

  def _around(self, candidates: Sequence[int] | np.ndarray) -> int:
    """Returns the tokens of a prompt beside the history."""
    listed = sum(len(self.segments[item]) for item in candidates)
    order = len(candidates) * (self._wrapped.shape[1] - 2)
    return len(self._head) + listed + order + 2

  def _check_budget(self) -> None:
    """Refuses budgets that some list of K candidates would exceed."""
    lengths = np.argsort([len(segment) for segment in self.segments])
    worst = self._around(lengths[-self.cfg.max_candidates :])
    if worst > self.cfg.max_tokens:
      raise ValueError(
        f'{self.cfg.max_candidates} long candidates alone take {worst} tokens, '
        f'but text.prompt.max_tokens is {self.cfg.max_tokens}: raise it, or '
        'lower title_tokens or category_tokens.'
      )


def category_path(categories: Sequence[str]) -> str:
  """Joins categories, root to leaf: ('Hair', 'Dye') -> 'Hair/Dye'.

  A path without spaces around its separator takes half the tokens of one with
  ' > ', since frequent paths become one piece (our choice).
  """
  return '/'.join(categories)
