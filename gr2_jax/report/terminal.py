"""The closing table of a run, for the terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax.report import kept, results, verdict

_COLUMNS = ('recall@1', 'recall@3', 'recall@5', 'ndcg@3', 'ndcg@5')
_RETRIEVAL = ('recall@5', 'recall@10', 'ndcg@5', 'ndcg@10')
_RATES = ('valid_rate', 'identity_rate')
_WIDTH = 80


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


def retriever(report: Mapping[str, Any]) -> str:
  """Names what retrieval was measured of: the source but for slates."""
  return report.get('retriever', report['source'])


def metrics(values: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the metrics of re-ranking that are there; those of grades last."""
  names = (*_COLUMNS, *results.GRADED)
  return tuple(name for name in names if name in values)


def retrieval_table(report: Mapping[str, Any]) -> str:
  """Lays out a run that ends with its candidates, for a terminal.

  Args:
    report: the content of `retrieval.json`.

  Returns:
    Several lines: the retrievers, and the source's differences from the others
    with their intervals.
  """
  own, source = report['retrieval'], retriever(report)
  cells = [['retriever', *_RETRIEVAL, 'illegal']]
  for name, values in {source: own, **report['baselines']}.items():
    numbers = [f'{values[column]:.4f}' for column in _RETRIEVAL]
    cells.append([name, *numbers, f'{values["illegal_rate"]:.4f}'])
  differences = [['', source, *own['deltas']]]
  for column in _RETRIEVAL:
    triples = [d[column] for d in (own['intervals'], *own['deltas'].values())]
    differences.append([column, *map(results.interval, triples)])
  share = ', '.join(f'{x:.3f}' for x in own['prefix_recall@10'])
  return '\n\n'.join(
    [
      *_kept(report, kept.warnings(report)),
      f'{report["dataset"]["name"]}, seed {report["seed"]}, whole catalogue, '
      f'{own["n"]} targets',
      rows(cells),
      'Bootstrap intervals of 95 %, paired where two differ\n'
      + rows(differences),
      f'Targets whose first 1, 2, .. codes are in the ten of {source}: {share}',
    ]
  )


def closing_table(report: Mapping[str, Any]) -> str:
  """Lays out the results of re-ranking for a terminal.

  Args:
    report: the content of `report.json`.

  Returns:
    Several lines: the verdict and what to beware of; the systems and what they
    are; the differences with their intervals, and the retrieval numbers beside
    them.
  """
  rerank, retrieval = report['rerank'], report['retrieval']
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
  systems = results.ordered(rerank['systems'])
  blocks = [
    f'{report["dataset"]["name"]}, seed {report["seed"]}, traces of the '
    f'teacher {report["teacher"]!r}',
    _verdict(report),
    _systems(systems),
    _meanings(systems),
  ]
  if rerank['deltas']:
    blocks.append(
      'Differences, with paired bootstrap intervals of 95 %\n'
      + _differences(rerank['deltas'])
    )
  if 'shuffled' in rerank:
    bias = dict(rerank['shuffled'])
    blocks.append(
      f'Candidates of {bias.pop("n")} lists in random order: gained or lost\n'
      + _differences(bias)
    )
  return '\n\n'.join([*blocks, hits + whole, *_kept(report)])


def _kept(report: Mapping[str, Any], warnings: Sequence[str] = ()) -> list[str]:
  """Describes what happened to the data, in a block or none."""
  told = [textwrap.fill(line, _WIDTH) for line in kept.lines(report)]
  told += map(_warning, warnings)
  return ['\n'.join(told)] if told else []


def _warning(text: str) -> str:
  return textwrap.fill(f'! {text}', _WIDTH, subsequent_indent='  ')


def _verdict(report: Mapping[str, Any]) -> str:
  first, *warnings = verdict.lines(report)
  return '\n'.join([textwrap.fill(first, _WIDTH), *map(_warning, warnings)])


def _meanings(systems: Mapping[str, Any]) -> str:
  """Lists what each system is, one a line."""
  names = [name for name in systems if name in results.SYSTEMS]
  width = max(map(len, names), default=0)
  return '\n'.join(
    f'{name.ljust(width)}  {results.SYSTEMS[name]}' for name in names
  )


def _systems(systems: Mapping[str, Mapping[str, float]]) -> str:
  """Lays out the systems; metrics of grades in a second table."""
  names = (*_COLUMNS, *_RATES)
  heads = [name.replace('_rate', '') for name in names]
  cells = [['system', *heads, 'in', 'out']]
  for name, values in systems.items():
    numbers = [f'{values[column]:.3f}' for column in names]
    lengths = (values.get(f'{key}_tokens') for key in ('prompt', 'answer'))
    cells.append([name, *numbers, *(f'{x:.0f}' if x else '' for x in lengths)])
  graded = metrics(next(iter(systems.values())))[len(_COLUMNS) :]
  more = [['system', *graded]]
  for name, values in systems.items():
    more.append([name, *(f'{values[column]:.3f}' for column in graded)])
  return '\n\n'.join(map(rows, [cells, more] if graded else [cells]))


def _differences(triples: Mapping[str, Mapping[str, list[float]]]) -> str:
  """Lays out differences, two side by side."""
  blocks, names = [], list(triples)
  for start in range(0, len(names), 2):
    part = names[start : start + 2]
    cells = [['', *part]]
    for column in metrics(triples[part[0]]):
      cells.append(
        [column, *(results.interval(triples[x][column]) for x in part)]
      )
    blocks.append(rows(cells))
  return '\n'.join(blocks)
