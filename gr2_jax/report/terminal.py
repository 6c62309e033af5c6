"""The closing table of a run, for the terminal."""

from collections.abc import Mapping
from typing import Any

_COLUMNS = ('recall@1', 'recall@3', 'recall@5', 'ndcg@3', 'ndcg@5')
_RATES = ('valid_rate', 'identity_rate')


def rows(cells: list[list[str]]) -> str:
  """Lays out a table: the first row is its head, the first column its names."""
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines = [
    '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in cells
  ]
  lines.insert(1, '-' * max(map(len, lines)))
  return '\n'.join(lines)


def interval(triple: list[float]) -> str:
  """Writes [delta, low, high] as `+.012 [-.003, +.027]`."""
  # Without the zeros three of them fit into the width of a terminal.
  delta, low, high = (f'{v:+.3f}'.replace('0.', '.', 1) for v in triple)
  return f'{delta} [{low}, {high}]'


def closing_table(report: Mapping[str, Any]) -> str:
  """Lays out the results of re-ranking for a terminal.

  Args:
    report: the content of `report.json`.

  Returns:
    Several lines: the systems, the differences with their intervals, and the
    retrieval numbers beside them.
  """
  rerank, retrieval = report['rerank'], report['retrieval']
  names = (*_COLUMNS, *_RATES)
  systems = [['system', *(name.replace('_rate', '') for name in names)]]
  for name, values in rerank['systems'].items():
    systems.append([name, *(f'{values[column]:.3f}' for column in names)])
  deltas = [['', *rerank['deltas']]]
  for column in _COLUMNS:
    values = rerank['deltas'].values()
    deltas.append([column, *(interval(value[column]) for value in values)])
  hits = (
    f'{rerank["n"]} test lists of {rerank["k"]} hold their target '
    f'(hit rate {rerank["hit_rate"]:.3f}).\n'
  )
  whole = (
    f'Whole catalogue ({retrieval["n"]}): '
    f'Recall@10 {retrieval["recall@10"]:.4f}, '
    f'NDCG@10 {retrieval["ndcg@10"]:.4f}, '
    f'illegal {retrieval["illegal_rate"]:.4f}.'
  )
  return '\n\n'.join(
    [
      f'{report["dataset"]["name"]}, seed {report["seed"]}, traces of the '
      f'teacher {report["teacher"]!r}',
      rows(systems),
      'Differences, with paired bootstrap intervals of 95 %\n' + rows(deltas),
      hits + whole,
    ]
  )
