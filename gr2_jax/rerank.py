"""A trained model applied to new lists that are given by item id.

reranker = rerank.load('runs/quickstart')
ranked = rerank.rank_records(
  reranker, [{'history': ['50', '172'], 'candidates': ['181', '174', '1']}]
)
"""

import json
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import columns as columns_lib
from gr2_jax.stages import ranker

load = ranker.load


def read_records(
  lines: Sequence[str | bytes],
  source: str,
  columns: Sequence[str] | None = None,
) -> list[dict]:
  """Parses JSON lines with `history` and `candidates`.

  A record may have `scores`, the retriever's, one number a candidate, and it
  has `features` where the run's lists bring columns (`data.columns`).

  Args:
    lines: the lines, as text or UTF-8; empty ones are passed over.
    source: what to call them in errors.
    columns: the run's (`store.user_columns`); None leaves their names to
      `rank_records`.

  Returns:
    One dict a line.

  Raises:
    ValueError: a line that is no such object, by number.
  """
  records = []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise ValueError(f'{source}:{number}: not JSON ({error}).') from error
    for key in ('history', 'candidates'):
      ids = record.get(key) if isinstance(record, dict) else None
      if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
        raise ValueError(
          f'{source}:{number}: {key!r} must be a list of item ids (strings).'
        )
    _read_numbers(record, f'{source}:{number}', columns)
    records.append(record)
  return records


def _read_numbers(
  record: dict, where: str, columns: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns a record's numbers of its k candidates; float32 [k, E] and [k]."""
  count, given = len(record['candidates']), record.get(columns_lib.KEY)
  if columns is None:
    columns = columns_lib.names(given, where)
  rows = columns_lib.rows(given, columns, count, where, 'the run')
  features = np.array(rows, np.float32).reshape(len(columns), count).T
  if record.get('scores') is None:
    return features, None
  scores = columns_lib.floats(record['scores'], count, 'scores', where)
  return features, np.array(scores, np.float32)


def rank_records(
  reranker: ranker.Ranker, records: Sequence[dict], batch_size: int = 64
) -> list[dict]:
  """Re-ranks lists that are given by item id.

  Args:
    reranker: from `load`.
    records: dicts with `history` and `candidates`, lists of item ids; see
      `read_records`.
    batch_size: lists decoded at a time.

  Returns:
    Copies of the records with `order`, `explanation`, `explanation_titles` (the
    same with titles in place of semantic IDs) and `valid`.

  Raises:
    ValueError: items that the catalogue does not have, by name, a list that
      names one twice, or numbers that do not fit (`data.columns`).
  """
  items = reranker.store.dataset.items
  index = {item.item_id: i for i, item in enumerate(items)}
  unknown = sorted(
    {i for r in records for i in (*r['history'], *r['candidates'])} - set(index)
  )
  if unknown:
    raise ValueError(
      f'{len(unknown)} items are not in the catalogue of '
      f'{reranker.store.workdir}: {unknown[:20]}. Leave them out, or train on '
      'a catalogue that has them.'
    )
  columns, numbers = reranker.store.user_columns, []
  for number, record in enumerate(records):
    numbers.append(_read_numbers(record, f'List {number}', columns))
    if len(set(record['candidates'])) != len(record['candidates']):
      raise ValueError(
        f'List {number} names a candidate twice: {record["candidates"]}.'
      )

  def indices(key: str) -> list[np.ndarray]:
    return [np.array([index[i] for i in r[key]], np.int32) for r in records]

  rankings = reranker.rank(
    indices('history'),
    indices('candidates'),
    batch_size,
    features=[features for features, _ in numbers] if columns else None,
    scores=[scores for _, scores in numbers],
  )
  return [
    {
      **record,
      'order': [items[i].item_id for i in ranking.order],
      'explanation': ranking.explanation,
      'explanation_titles': ranking.explanation_titles,
      'valid': ranking.valid,
    }
    for record, ranking in zip(records, rankings, strict=True)
  ]
