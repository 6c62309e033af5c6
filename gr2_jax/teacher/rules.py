"""A teacher of rules: ranks by what items share, and says so in two steps.

It stands in for a large language model where there is none: a teacher behind
the same interface, named `rules` in every report. It sees what a request shows
and what a retriever may train on, never a target that it was not told.
"""

import dataclasses
import string
from collections.abc import Iterator, Sequence

import numpy as np

from gr2_jax import bounds
from gr2_jax import config as config_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.rank import evidence as evidence_lib
from gr2_jax.rank import item_features
from gr2_jax.teacher import base, rationale
from gr2_jax.text import semantic_ids
from gr2_jax.text import vocab as vocab_lib

_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class RulesConfig:
  """Weights of the rules; all are our choice.

  They weigh three columns of `rank.evidence`, each standardised within its
  list, and all candidates are ranked by the sum. The defaults were chosen on
  MovieLens-100K's validation lists; on its test lists they rank better than the
  incoming order of the generative retriever (results/quickstart.md).

  Attributes:
    recency: weight of a history item over that of the next younger one.
    content: weight of shared categories, brand and words.
    follow: weight of the order of buying.
    window: how far apart two items may stand to count as following.
    prior: weight of the incoming order (minus the log of the rank).
    noise: standard deviation of the noise, times the number of the attempt.
    least_seen: an order of buying that counts less (`Order.information`) is not
      named. With 3 it was seen apart from the list's own user, whose purchase
      may be among what is counted.
    name_tokens: a longer category, brand or word is not named; nor is one that
      spells an added token, which would be read as that token.
  """

  recency: float = 0.8
  content: float = 0.25
  follow: float = 0.75
  window: int = 3
  prior: float = 0.75
  noise: float = 0.2
  least_seen: float = 3.0
  name_tokens: int = 4

  def __post_init__(self):
    evidence_lib.EvidenceConfig(self.recency, self.window)  # Checks them.
    bounds.at_least(self, 0, 'noise', 'name_tokens')
    if self.least_seen <= 0:
      raise ValueError(
        f'traces.rules.least_seen is {self.least_seen}; give more than 0.'
      )


class RulesTeacher:
  """The rules over one catalogue; see `base.Teacher`."""

  name = 'rules'

  def __init__(
    self,
    dataset: dataset_lib.Dataset,
    splits: splits_lib.Splits,
    sids: np.ndarray,
    vocab: vocab_lib.Vocab,
    *,
    history_items: int,
    explanation_tokens: int,
    cfg: RulesConfig,
  ):
    """Counts what items share and what follows what.

    Args:
      dataset: items and sequences; of these only `[:splits.train_end]` is read.
      splits: how much of each sequence may be seen.
      sids: semantic IDs, int [I, L].
      vocab: measures and writes explanations.
      history_items: how many of the last items prompts show.
      explanation_tokens: budget of an explanation.
      cfg: the weights.

    Raises:
      ValueError: even the shortest rationale exceeds the budget. Longer ones
        that do are rejected by `sampling.collect`.
    """
    self._cfg = cfg
    self._vocab = vocab
    self._sids = sids
    self._history_items = history_items
    self._evidence = evidence_lib.Evidence(
      dataset,
      splits,
      evidence_lib.EvidenceConfig(cfg.recency, cfg.window, history_items),
    )
    self._features, self._order = self._evidence.features, self._evidence.order
    self._fit = [self._fits(name) for name in self._features.names]
    self._check_budget(explanation_tokens)
    # What the vocabulary decides is which names are short enough.
    self.identity = {
      **dataclasses.asdict(cfg),
      'history_items': history_items,
      'names': config_lib.fingerprint(self._fit),
      'wordings': config_lib.fingerprint(rationale.templates()),
    }

  def answer(
    self,
    requests: Sequence[base.Request],
    attempt: int,
    seeds: Sequence[int],
  ) -> Iterator[list[tuple[int, base.Answer]]]:
    """Ranks and explains; see `base.Teacher.answer`.

    Without a hint the ranking is by score. With one the hint comes first and is
    what the explanation is about.
    """
    for start in range(0, len(requests), _CHUNK):
      chunk = requests[start : start + _CHUNK]
      draws = map(np.random.default_rng, seeds[start : start + _CHUNK])
      noise, styles = [], []
      for request, rng in zip(chunk, draws, strict=True):
        noise.append(rng.standard_normal(len(request.candidates)))
        styles.append(rationale.draw_style(rng))
      orders = self._rank(chunk, attempt, noise)
      rows = zip(chunk, orders, styles, strict=True)
      yield [
        (start + index, self._explain(*row)) for index, row in enumerate(rows)
      ]

  def _explain(
    self, request: base.Request, order: np.ndarray, style: np.ndarray
  ) -> base.Answer:
    ranking = [int(i) for i in np.asarray(request.candidates)[order]]
    if request.hint is not None:
      ranking.remove(request.hint)
      ranking.insert(0, request.hint)
    facts = self._facts(request, ranking[0], int(style[2]))
    return base.Answer(ranking, rationale.write(facts, style[:2]))

  def scores(self, requests: Sequence[base.Request]) -> np.ndarray:
    """Scores candidates without noise.

    Args:
      requests: N lists; the hint is not read.

    Returns:
      float32 [N, K]; -inf beyond the end of a shorter list.
    """
    candidates = item_features.pad([r.candidates for r in requests])
    columns = self._evidence.columns(
      [r.history for r in requests],
      candidates,
      np.zeros(candidates.shape),  # What is retrieved has no score here.
    )
    real = candidates >= 0
    total = from_columns(columns, real, self._evidence.names, self._cfg)
    return np.where(real, total, -np.inf).astype(np.float32)

  def _rank(
    self,
    requests: Sequence[base.Request],
    attempt: int,
    noise: Sequence[np.ndarray],
  ) -> list[np.ndarray]:
    """Places of the candidates in each list, best first."""
    noise = [each * self._cfg.noise * attempt for each in noise]
    scores = [
      row[: len(each)] + each
      for row, each in zip(self.scores(requests), noise, strict=True)
    ]
    return [np.argsort(-row, kind='stable') for row in scores]

  def _facts(
    self, request: base.Request, chosen: int, pick: int
  ) -> rationale.Facts:
    """Finds the history's themes and one of the two strongest relations."""
    # The youngest first.
    history = np.asarray(request.history[-self._history_items :][::-1], int)
    relations = sorted(self._relations(history, chosen), key=lambda r: -r[0])
    last = int(history[0]) if len(history) else chosen
    found = relations[:2] or [(0.0, rationale.NONE, '', last)]
    _, relation, name, cited = found[pick % len(found)]
    return rationale.Facts(
      themes=self._themes(history),
      relation=relation,
      name=name,
      cited=self._cite(cited),
    )

  def _themes(self, history: np.ndarray) -> list[str]:
    """Names the two categories that the history is most about."""
    gains: dict[int, float] = {}
    for age, item in enumerate(history.tolist()):
      for feature in self._features.of(item).tolist():
        if self._fit[feature] and self._is_category(feature):
          # Rare categories say more, but a single one is no theme.
          gain = float(self._features.rarity[feature]) ** 0.5
          gains[feature] = (
            gains.get(feature, 0.0) + self._cfg.recency**age * gain
          )
    best = sorted(gains, key=lambda feature: -gains[feature])[:2]
    return [self._features.names[feature] for feature in best]

  def _relations(
    self, history: np.ndarray, chosen: int
  ) -> list[tuple[float, str, str, int]]:
    """Lists (nats, relation, name, history item) of what ties an item in."""
    latest: dict[int, int] = {}
    for item in history.tolist():
      for feature in self._features.of(item).tolist():
        latest.setdefault(feature, item)
    found = [
      (
        float(self._features.rarity[feature]),
        self._features.kinds[feature],
        self._features.names[feature],
        latest[feature],
      )
      for feature in self._features.of(chosen).tolist()
      if feature in latest and self._fit[feature]
    ]
    information = self._order.information(history, chosen, self._cfg.least_seen)
    if len(history) and information.max() > 0:
      item = int(history[information.argmax()])
      found.append((float(information.max()), rationale.FOLLOWS, '', item))
    return found

  def _fits(self, name: str) -> bool:
    tokens = self._vocab.encode(f' {name},')
    short = len(tokens) <= self._cfg.name_tokens
    return short and max(tokens) < self._vocab.text_size

  def _is_category(self, feature: int) -> bool:
    return self._features.kinds[feature] == item_features.CATEGORY

  def _cite(self, item: int) -> str:
    return semantic_ids.wrap(semantic_ids.write(self._sids[item]))

  def _cost(self, template: str) -> int:
    """Counts the tokens that a wording takes at most."""
    cost = 0
    for text, field, _, _ in string.Formatter().parse(template):
      cost += len(self._vocab.encode(text))
      if field == 'cited':
        cost += self._vocab.levels + 2
      elif field is not None:
        cost += self._cfg.name_tokens
    return cost

  def _check_budget(self, budget: int) -> None:
    """Refuses a budget that every rationale might exceed."""
    least = sum(
      min(self._cost(text) for text in step)
      for step in rationale.templates().values()
    )
    if least > budget:
      raise ValueError(
        f'The shortest rationale takes {least} tokens, but explanation_tokens '
        f'is {budget}: raise it.'
      )


def from_columns(
  columns: np.ndarray,
  real: np.ndarray,
  names: Sequence[str],
  cfg: RulesConfig | None = None,
) -> np.ndarray:
  """Scores candidates by the rules' columns of evidence.

  Args:
    columns: float [N, K, F], of `rank.evidence`, in any unit.
    real: bool [N, K], which entries are no padding.
    names: of the F columns.
    cfg: the weights; the defaults if None.

  Returns:
    float [N, K].
  """
  cfg = cfg or RulesConfig()
  weights = (
    ('content', cfg.content),
    ('follow', cfg.follow),
    ('log_rank', cfg.prior),
  )
  return sum(
    w * item_features.standardise(columns[..., list(names).index(name)], real)
    for name, w in weights
  )
