"""The report as one self-contained HTML page: tables, charts, ten lists.

No script and no external resource; everything that comes from data is escaped.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax.report import (
  intervals,
  kept,
  lists,
  markup,
  results,
  terminal,
  verdict,
)

_RETRIEVAL = ('recall@5', 'recall@10', 'ndcg@5', 'ndcg@10')
_RATES = ('valid_rate', 'identity_rate')
_EXPLANATIONS = {
  'citing': 'cite',
  'cited_exist': 'exist',
  'cited_history': 'of the history',
  'cited_candidates': 'of the candidates',
  'last_is_top': 'last is top',
  'distinct_1': 'distinct 1',
  'distinct_2': 'distinct 2',
  'distinct_3': 'distinct 3',
}
_LENGTHS = ('prompt_tokens', 'answer_tokens')
_TITLES = {
  'valid_rate': 'valid',
  'identity_rate': 'identity',
  'prompt_tokens': 'tokens in',
  'answer_tokens': 'tokens out',
  'illegal_rate': 'illegal',
  'auc': 'AUC',
  'graded_ndcg': 'graded N',
}


def _title(name: str) -> str:
  return _TITLES.get(name, name.replace('recall', 'R').replace('ndcg', 'N'))


def _facts(facts: Mapping[str, Any]) -> str:
  cells = ''.join(
    f'<div><dt>{html.escape(name)}</dt><dd>{html.escape(_short(value))}</dd>'
    '</div>'
    for name, value in facts.items()
  )
  return f'<dl class="facts">{cells}</dl>'


def _short(value: Any) -> str:
  if isinstance(value, bool) or value is None:
    return str(value).lower()
  if isinstance(value, float):
    return f'{value:.4g}'
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, (list, tuple)):
    return ', '.join(_short(part) for part in value)
  if isinstance(value, Mapping):
    return ', '.join(f'{name} {_short(part)}' for name, part in value.items())
  return str(value)


def _rerank(report: Mapping[str, Any]) -> str:
  rerank = report['rerank']
  systems = results.ordered(rerank['systems'])
  metrics = terminal.metrics(next(iter(systems.values())))
  shown = markup.table(
    ['system', *map(_title, (*metrics, *_RATES, *_LENGTHS))],
    [
      [
        name,
        *(f'{values[key]:.3f}' for key in (*metrics, *_RATES)),
        *(f'{values[key]:.1f}' if key in values else '' for key in _LENGTHS),
      ]
      for name, values in systems.items()
    ],
  )
  drawn = ''.join(
    intervals.chart(
      f'rerank/{name}',
      name.replace('-', ' − '),
      {_title(key): values[key] for key in metrics},
    )
    for name, values in rerank['deltas'].items()
  )
  differences = (
    '<h3>Differences, with paired bootstrap intervals of 95 %</h3>'
    f'{_deltas(rerank["deltas"])}<div class="charts">{drawn}</div>'
    if rerank['deltas']
    else ''
  )
  return (
    '<h2>Re-ranking</h2>'
    f'<p>{rerank["n"]:,} test lists of {rerank["k"]} candidates hold their '
    f'target (hit rate {rerank["hit_rate"]:.3f}); only these are re-ranked. '
    'An answer that is no permutation of its list counts as the incoming '
    'order, as in serving; <em>valid</em> is the share of answers that are '
    'one, <em>identity</em> the share that repeat the incoming order.</p>'
    f'{shown}{_meanings(systems)}{differences}{_shuffled(rerank)}'
  )


def _meanings(systems: Mapping[str, Any]) -> str:
  cells = ''.join(
    f'<dt>{html.escape(name)}</dt><dd>{html.escape(results.SYSTEMS[name])}</dd>'
    for name in systems
    if name in results.SYSTEMS
  )
  return f'<dl class="meanings">{cells}</dl>'


def _verdict(report: Mapping[str, Any]) -> str:
  first, *warnings = verdict.lines(report)
  listed = ''.join(f'<li>{html.escape(line)}</li>' for line in warnings)
  below = f'<ol class="warnings">{listed}</ol>' if warnings else ''
  return f'<p class="verdict">{html.escape(first)}</p>{below}'


def _shuffled(rerank: Mapping[str, Any]) -> str:
  if 'shuffled' not in rerank:
    return ''
  bias = dict(rerank['shuffled'])
  n = bias.pop('n')
  return (
    '<h3>Candidates in random order: what is gained or lost</h3>'
    f'<p>{n:,} of the lists, with their candidates shuffled in the prompt.</p>'
    f'{_deltas(bias)}'
  )


def _deltas(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  metrics = terminal.metrics(next(iter(rows.values())))
  return markup.table(
    ['difference', *map(_title, metrics)],
    [
      [
        name.replace('-', ' − '),
        *(_interval(values[key]) for key in metrics),
      ]
      for name, values in rows.items()
    ],
  )


def _interval(triple: Sequence[float]) -> str:
  delta, low, high = (f'{value:+.3f}'.replace('-', '−') for value in triple)
  return f'{delta}\n[{low}, {high}]'


def _retrieval(report: Mapping[str, Any]) -> str:
  own = html.escape(terminal.retriever(report))
  first = own if 'slates' in report else 'candidates'
  rows = {first: report['retrieval'], **report['baselines']}
  columns = (*_RETRIEVAL, 'illegal_rate')
  systems = markup.table(
    ['retriever', 'n', *map(_title, columns)],
    [
      [name, f'{v["n"]:,}', *(f'{v[key]:.4f}' for key in columns)]
      for name, v in rows.items()
    ],
  )
  deltas = markup.table(
    ['', *map(_title, _RETRIEVAL)],
    [
      [name, *(_interval(v[key]) for key in _RETRIEVAL)]
      for name, v in report['retrieval']['deltas'].items()
    ],
  )
  what = f'What makes the candidates ({own}), and the baselines'
  if 'slates' in report:
    what = (
      f'The candidates are served slates ({_short(report["slates"])}); '
      f'retrieved by the model itself ({own}) and the baselines'
    )
  return (
    f'<h2>Retrieval over the whole catalogue</h2><p>{what}, on all test '
    f'targets.</p>{systems}<h3>Differences, with intervals of 95 %</h3>{deltas}'
  )


def _data(report: Mapping[str, Any]) -> str:
  told = ''.join(f'<p>{html.escape(x)}</p>' for x in kept.lines(report))
  return f'<h2>Data</h2>{told}' if told else ''


def _explanations(report: Mapping[str, Any]) -> str:
  found = {}
  if 'quality' in report['traces']:
    found['teacher'] = report['traces']['quality']
  found |= report.get('explanations', {})
  if not found:
    return ''
  rows = [
    [name, f'{v["explanations"]:,}', *(f'{v[k]:.3f}' for k in _EXPLANATIONS)]
    for name, v in found.items()
  ]
  return (
    '<h2>Explanations</h2><p>The share that <em>cite</em> semantic IDs; of the '
    'cited ones the shares that exist, are of the history, are of the '
    'candidates; how often the last one is the first of the list; and the '
    'share of different runs of one, two and three words. Accepted traces of '
    'the teacher, and test answers of the models.</p>'
    + markup.table(['', 'n', *_EXPLANATIONS.values()], rows)
  )


def _learning(sections: Sequence[tuple[str, Sequence[str]]]) -> str:
  return '<h2>Learning curves</h2>' + ''.join(
    f'<h3>{html.escape(title)}</h3><div class="charts">{"".join(drawn)}</div>'
    for title, drawn in sections
  )


def build(
  report: Mapping[str, Any],
  sections: Sequence[tuple[str, Sequence[str]]],
  examples: Sequence[lists.Example],
) -> str:
  """Writes the page.

  Args:
    report: the content of `report.json`.
    sections: (heading, charts) of the learning curves, from `curves.draw`.
    examples: test lists to show.

  Returns:
    The HTML document.
  """
  dataset = report['dataset']
  title = f'GR2 on {dataset["name"]}'
  seconds = report['seconds']
  facts = _facts(
    {
      **{key: dataset[key] for key in ('users', 'items', 'interactions')},
      'teacher': report['teacher'],
      'seed': report['seed'],
      'commit': report['commit'][:12],
      'data sha256': dataset['sha256'][:12],
      'seconds': sum(seconds.values()),
    }
  )
  traces = {k: v for k, v in report['traces'].items() if k != 'quality'}
  stages = markup.table(
    list(seconds), [[f'{v:.0f} s' for v in seconds.values()]]
  )
  return markup.frame(
    title,
    facts,
    f'{_verdict(report)}{_rerank(report)}{_retrieval(report)}{_data(report)}'
    f'<h2>Semantic IDs</h2>{_facts(report["sid"])}'
    f'<h2>Reasoning traces</h2>{_facts(traces)}'
    f'{_explanations(report)}{_learning(sections)}{lists.section(examples)}'
    f'<h2>Run</h2>{stages}{markup.configuration(report["config"])}',
  )
