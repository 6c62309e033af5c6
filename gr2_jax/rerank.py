"""A trained model applied to new lists that are given by item id.

reranker = rerank.load('runs/quickstart')
ranked = rerank.rank_records(
  reranker, [{'history': ['50', '172'], 'candidates': ['181', '174', '1']}]
)

Ids may be whole numbers, as in data files. A record may have `scores`, the
retriever's, and `items`, new ones as in `items.jsonl`; it has `features` where
the lists of the run (`data.columns`) do.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gr2_jax import assets
from gr2_jax import progress as progress_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import raw_files
from gr2_jax.ranker import (
  catalogues,
  finding,
  grown,
  new_items,
  ranker,
  ranking,
  records,
)

load_retriever = finding.load

# What answers add to their records. Of a record that is an answer already, as
# where the output of one model is the input of another, they are not kept.
_ANSWER = (
  *('order', 'scores', 'explanation', 'explanation_titles', 'valid'),
  *('unknown', 'unknown_history', 'error'),
)


class Answer(NamedTuple):
  """The outcome of one line.

  Attributes:
    record: the line's record with the answer, or with `error`, a message.
    failed: whether it is an error.
    found: what the model gave; None of an error, or if no candidate is known.
  """

  record: dict
  failed: bool
  found: ranking.Ranking | None = None


def load(
  workdir: pathlib.Path | str,
  model: str = 'rl',
  *,
  mesh: jax.sharding.Mesh | None = None,
  mode: str | None = None,
  catalogue: pathlib.Path | str | None = None,
  progress: bool = True,
) -> ranker.Ranker:
  """Loads a model of a finished run.

  Compiled programs are kept on disk for later processes, as those of commands
  are (`assets.keep_programs`).

  Args:
    workdir: the run's directory.
    model: which one: 'sft', 'rl', or 'direct', the second round of RL.
    mesh: where to; by default the mesh of the run's config.
    mode: how it answers, one of `ranking.MODES`; by default 'direct' of the
      model of that name, else 'explained'.
    catalogue: what `launch.new_items` wrote; its items are ranked like others.
    progress: whether there are progress bars, here and later.

  Returns:
    The ranker.

  Raises:
    FileNotFoundError: the run, or this model of it, is not there.
    ValueError: no such mode, a mode that the model does not have, or a
      catalogue of another run.
  """
  assets.keep_programs()
  with progress_lib.hidden(not progress):
    found = ranker.load(workdir, model, mesh, mode, progress)
    if catalogue is None:
      return found
    return grown.grow(found, *catalogues.read_for(catalogue, found.store))


def rank_records(
  reranker: ranker.Ranker, lists: Sequence[dict], batch_size: int = 64
) -> list[dict]:
  """Re-ranks lists that are given by item id.

  Args:
    reranker: from `load`.
    lists: records, dicts with `history` and `candidates`, lists of item ids,
      and what else a record may have (see above).
    batch_size: lists decoded at a time.

  Returns:
    Copies of the records with `order`, the candidates, best first; `scores`,
    the utility of each in that order (None of an answer that was written token
    by token); `explanation`, `explanation_titles` (the same with titles in
    place of semantic IDs) and `valid`. Candidates that the catalogue does not
    have stand at the end of `order` as they came in, with None as their scores,
    and in `unknown`; `unknown_history` counts such items of the history, which
    are left out. Both keys are there where there are such items.

  Raises:
    ValueError: a record without these lists, a list that names an item twice or
      is too short or too long, or numbers or items that do not fit.
  """
  where = [f'List {number}' for number in range(len(lists))]
  found = rank_each(reranker, lists, where, batch_size, strict=True)
  return [answer.record for answer in found]


def rank_lines(
  reranker: ranker.Ranker,
  lines: Sequence[str | bytes],
  source: str,
  first: int = 1,
  batch_size: int = 64,
) -> list[Answer]:
  """Re-ranks lists that are given as JSON lines; an error belongs to its line.

  Args:
    reranker: from `load`.
    lines: the lines, as text or UTF-8; empty ones are passed over.
    source: what to call them in errors.
    first: number of the first line.
    batch_size: lists decoded at a time.

  Returns:
    One answer a line, in their order: what `rank_records` returns, or `error`,
    beside what else the record has if it could be read.
  """
  found, where = [], []
  for number, line in enumerate(lines, first):
    if line.strip():
      where.append(f'{source}:{number}')
      found.append(_attempt(raw_files.parse, None, line, where[-1]))
  return rank_each(reranker, found, where, batch_size)


def rank_each(
  reranker: ranker.Ranker,
  given: Sequence[Any],
  where: Sequence[str],
  batch_size: int = 64,
  *,
  strict: bool = False,
  tokenizer: new_items.Tokenizer | None = None,
) -> list[Answer]:
  """Re-ranks lists; an error belongs to its list.

  Args:
    reranker: from `load`.
    given: records as in `rank_records`, or answers, which stay as they are.
    where: what to call each in its error.
    batch_size: lists decoded at a time.
    strict: raises the first error, a ValueError.
    tokenizer: gives new items semantic IDs; the reranker's own by default.

  Returns:
    One answer a record, in their order.
  """
  read = [
    record
    if isinstance(record, Answer)
    else _attempt(records.read, record, reranker, record, place)
    for record, place in zip(given, where, strict=True)
  ]
  read = _give_sids(reranker, read, where, tokenizer)
  failed = [each for each in read if isinstance(each, Answer)]
  if failed and strict:
    raise ValueError(failed[0].record['error'])
  rows = [i for i, each in enumerate(read) if isinstance(each, records.Record)]
  ranked = _ranked(reranker, [read[i] for i in rows], batch_size)
  for row, answer in zip(rows, ranked, strict=True):
    read[row] = answer
  return read


def _attempt(make: Callable, record: Any, *args: Any) -> Any:
  """Returns what `make(*args)` returns, or its error as an answer."""
  try:
    return make(*args)
  except ValueError as error:
    return Answer({**_carried(record), 'error': str(error)}, True)


def _carried(record: Any) -> dict:
  """Returns what an answer carries over of a record."""
  if not isinstance(record, dict):
    return {}
  return {key: x for key, x in record.items() if key not in _ANSWER}


def _give_sids(
  reranker: ranker.Ranker,
  read: Sequence[Any],
  where: Sequence[str],
  tokenizer: new_items.Tokenizer | None,
) -> list[Any]:
  """Gives the items that records bring semantic IDs.

  Those of a record depend on the catalogue and on that record alone.
  """
  items = [x for e in read if isinstance(e, records.Record) for x in e.items]
  if not items:
    return list(read)
  done, nearest, problem = 0, (), None
  tokenizer = tokenizer or reranker.tokenizer
  try:
    nearest = tokenizer.codes(items)
  except ValueError as error:
    problem = error

  def give(
    given: records.Record, codes: np.ndarray, place: str
  ) -> records.Record:
    try:
      if problem is not None:
        raise problem
      _, sids = tokenizer.distinct(given.items, codes, reranker.store.sids)
    except ValueError as error:
      raise ValueError(f'{place}: {error}') from error
    return dataclasses.replace(given, sids=sids)

  found = []
  for each, place in zip(read, where, strict=True):
    if isinstance(each, records.Record) and each.items:
      codes = nearest[done : done + len(each.items)]
      done += len(each.items)
      each = _attempt(give, each.given, each, codes, place)
    found.append(each)
  return found


def _ranked(
  reranker: ranker.Ranker, lists: Sequence[records.Record], batch_size: int
) -> list[Answer]:
  """Ranks lists; returns their answers."""
  catalogue, numbers = reranker.store.dataset.num_items, []
  brought = 0
  for each in lists:
    own = lambda x, by=brought: np.where(x >= catalogue, x + by, x)
    numbers.append((own(each.history), own(each.candidates)))
    brought += len(each.items)
  if brought:
    reranker = grown.grow(
      reranker,
      [item for each in lists for item in each.items],
      np.concatenate([each.sids for each in lists]),
    )
  rows = [i for i, each in enumerate(lists) if len(each.candidates)]
  columns = reranker.store.user_columns
  rankings = reranker.rank(
    [numbers[i][0] for i in rows],
    [numbers[i][1] for i in rows],
    batch_size,
    features=[lists[i].features for i in rows] if columns else None,
    scores=[lists[i].scores for i in rows],
  )
  found = dict(zip(rows, rankings, strict=True))
  items = reranker.store.dataset.items
  return [_answer(each, found.get(i), items) for i, each in enumerate(lists)]


def _answer(
  given: records.Record,
  found: ranking.Ranking | None,
  items: Sequence[dataset_lib.Item],
) -> Answer:
  """Puts an answer together; `found` is None where no candidate is known."""
  known = [] if found is None else [items[i].item_id for i in found.order]
  scores: list[float | None] | None = []
  if found is not None:
    scores = None if found.scores is None else found.scores.tolist()
  nothing = [None] * len(given.unknown)
  answer = {
    **_carried(given.given),
    'order': [*(given.spelled[x] for x in known), *given.unknown],
    'scores': None if scores is None else [*scores, *nothing],
    'explanation': found.explanation if found else '',
    'explanation_titles': found.explanation_titles if found else '',
    'valid': found is None or found.valid,
  }
  if given.unknown:
    answer['unknown'] = given.unknown
  if given.left_out:
    answer['unknown_history'] = given.left_out
  return Answer(answer, False, found)
