"""A run's model as the server uses it: direct, explained, with new items.

engine = load('runs/quickstart', 'rl')
engine.warm_up()
engine.answer('direct', [{'history': [...], 'candidates': [...]}], ['a list'])
"""

import contextlib
import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from gr2_jax import rerank
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.ranker import catalogues, grown, new_items, ranker, ranking
from gr2_jax.train import timing

# Programs of several devices must start in one order on all of them.
_TURN = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Engine:
  """A model, ready to rank.

  Attributes:
    workdir: of its run.
    model: which one of the run.
    direct: ranks without explanation.
    explained: the same model, with explanations; None if it writes none.
    trained: items of the run; those behind them came later.
    batch_size: lists answered at a time.
    longest: candidates of a list, at most, that `warm_up` prepares for.
    tokenizer: returns what gives new items semantic IDs; read when first asked.
  """

  workdir: pathlib.Path
  model: str
  direct: ranker.Ranker
  explained: ranker.Ranker | None
  trained: int
  batch_size: int
  longest: int
  tokenizer: Callable[[], new_items.Tokenizer]

  @property
  def name(self) -> str:
    """How answers call it, e.g. 'quickstart/rl'."""
    return f'{self.workdir.name}/{self.model}'

  @property
  def explains(self) -> bool:
    """Whether it writes explanations."""
    return self.explained is not None

  @property
  def items(self) -> Sequence[dataset_lib.Item]:
    """The whole catalogue."""
    return self.direct.store.dataset.items

  @property
  def added(self) -> Sequence[dataset_lib.Item]:
    """The items that came after training."""
    return self.items[self.trained :]

  @property
  def most_candidates(self) -> int:
    """Candidates of a list, at most, that it is prepared for."""
    own = self.direct.store.prompter.cfg.max_candidates
    return max(self.longest, own) if self.direct.by_utilities else own

  def knows(self, item_id: str) -> bool:
    """Says whether the catalogue has an item."""
    return item_id in self.direct.store.dataset.index

  def title(self, item_id: str) -> str:
    """Returns an item's title; '' if it is unknown."""
    place = self.direct.store.dataset.index.get(item_id)
    return '' if place is None else self.items[place].title

  @functools.cached_property
  def no_news(self) -> str:
    """Why it cannot give new items semantic IDs; empty if it can."""
    try:
      self.tokenizer().codes([dataset_lib.Item('', 'A title')])
    except (ValueError, OSError, RuntimeError) as error:
      logging.warning('New items will be refused: %s', error)
      return f'this server takes no new items ({error})'
    return ''

  def warm_up(self) -> None:
    """Compiles all shapes, and reads what new items take."""
    self.direct.warm_up(self.batch_size, self.longest)
    if self.explained is not None:
      self.explained.warm_up(self.batch_size)
    _ = self.no_news

  def answer(
    self, kind: str, lists: Sequence[dict], where: Sequence[str]
  ) -> list[rerank.Answer]:
    """Ranks lists.

    Args:
      kind: 'direct' or 'explained'.
      lists: records as `rerank.rank_records` reads them.
      where: what to call each in its error.
    """
    asked = self.direct if kind == ranking.DIRECT else self.explained
    given: list[Any] = list(lists)
    news = [i for i, record in enumerate(lists) if record.get('items')]
    if news and self.no_news:
      for i in news:
        error = f'{where[i]}: {self.no_news}.'
        given[i] = rerank.Answer({'error': error}, True)
      news = []
    tokenizer = self.tokenizer() if news else None
    with _TURN if asked.mesh.size > 1 else contextlib.nullcontext():
      return rerank.rank_each(
        asked, given, where, self.batch_size, tokenizer=tokenizer
      )

  def grow(
    self, items: Sequence[dataset_lib.Item]
  ) -> tuple['Engine', np.ndarray]:
    """Gives new items semantic IDs; those of the catalogue stay.

    Args:
      items: N items that the catalogue does not have.

    Returns:
      The engine that knows them, and their semantic IDs int32 [N, L].

    Raises:
      ValueError: it cannot, as where a run's IDs come from vectors of its own.
    """
    if self.no_news:
      raise ValueError(f'No items were added: {self.no_news}.')
    tokenizer, taken = self.tokenizer(), self.direct.store.sids
    _, sids = tokenizer.distinct(items, tokenizer.codes(items), taken)
    return self._with(grown.grow(self.direct, items, sids)), sids

  def save(self, path: pathlib.Path) -> None:
    """Writes the items that came after training as a catalogue.

    Args:
      path: what `load` and `launch.rerank --catalogue` read.
    """
    old, new = np.split(self.direct.store.sids, [self.trained])
    catalogues.write(path, self.added, new, catalogues.stamp(old))

  def _with(self, direct: ranker.Ranker) -> 'Engine':
    """Returns the same with another ranker."""
    explained = None if self.explained is None else explaining(direct)
    return dataclasses.replace(self, direct=direct, explained=explained)


def explaining(direct: ranker.Ranker) -> ranker.Ranker:
  """Returns a ranker of the same model that explains."""
  known = direct.evidence if direct.by_utilities else None
  return dataclasses.replace(direct, mode=ranking.EXPLAINED, known=known)


def load(
  workdir: pathlib.Path | str,
  model: str = 'rl',
  *,
  catalogue: pathlib.Path | None = None,
  explain: bool = True,
  batch_size: int = 32,
  longest: int = 0,
) -> Engine:
  """Loads a model of a finished run.

  Args:
    workdir: the run's directory.
    model: which one, as in `rerank.load`.
    catalogue: items that came after training; of `launch.new_items` or `save`.
    explain: whether it explains; 'direct' models never do.
    batch_size: lists answered at a time.
    longest: candidates of a list to be prepared for; at least the run's.

  Returns:
    The engine.

  Raises:
    FileNotFoundError: the run, or this model of it, is not there.
    ValueError: as in `rerank.load`.
  """
  direct = rerank.load(workdir, model, mode=ranking.DIRECT, progress=False)
  trained = direct.store.dataset.num_items
  if catalogue is not None:
    found = catalogues.read_for(catalogue, direct.store)
    direct = grown.grow(direct, *found)
  explained = None
  if explain and model != ranking.DIRECT:
    explained = explaining(direct)
  where = pathlib.Path(workdir).expanduser().absolute()
  return Engine(
    workdir=where,
    model=model,
    direct=direct,
    explained=explained,
    trained=trained,
    batch_size=batch_size,
    longest=longest,
    tokenizer=functools.cache(
      functools.partial(new_items.load, where, direct.mesh)
    ),
  )


def watch_compilations(heard: Callable[[], None]) -> None:
  """Calls a function for each program that JAX compiles from now on.

  Args:
    heard: called on the thread that asked for the program.
  """

  def hear(event: str, seconds: float, **_) -> None:
    if event == timing.COMPILED:
      heard()

  jax.monitoring.register_event_duration_secs_listener(hear)
