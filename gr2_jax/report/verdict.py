"""The verdict of a report, in words: who won, by how much, and warnings."""

from collections.abc import Mapping, Sequence
from typing import Any

from gr2_jax.report import kept, results

_METRICS = {'ndcg@5': 'NDCG@5', 'recall@5': 'Recall@5'}
# Below these a run shows little; all our choice.
_LISTS = 300
_TRACES = 300
_COVERAGE = 0.1
_TOP_SHARE = 0.5


def _outcomes(
  triples: Mapping[str, Sequence[float]],
) -> dict[str, list[str]]:
  """Sorts metrics, written with their intervals, by 'won', 'level', 'lost'."""
  found: dict[str, list[str]] = {'won': [], 'level': [], 'lost': []}
  for metric, name in _METRICS.items():
    if metric in triples:
      _, low, high = triples[metric]
      kind = 'won' if low > 0 else 'lost' if high < 0 else 'level'
      text = f'{name} ({results.interval(triples[metric])})'
      found[kind].append(text)
  return found


def _told(found: Mapping[str, Sequence[str]], other: str) -> str:
  """Compares one with the other: `beats it in A, is level with it in B`.

  Args:
    found: of `_outcomes`.
    other: its name, where it comes first; then it is `it`.

  Returns:
    What follows the name of the one; empty where no metric is there.
  """
  verbs = {'won': 'beats', 'level': 'is level with', 'lost': 'loses to'}
  parts = []
  for kind, verb in verbs.items():
    if found[kind]:
      name = 'it' if parts else other
      parts.append(f'{verb} {name} in {" and ".join(found[kind])}')
  return ' and '.join(parts)


def _against_evidence(found: Mapping[str, Sequence[str]]) -> str:
  """Describes what the language model adds to the evidence, if anything."""
  told = _told(found, 'the linear model on the same evidence')
  if not told:
    return ''
  if not found['won']:
    told += ': the language model adds nothing to the evidence'
  elif not found['lost']:
    told += ': the language model adds to the evidence'
  return told


def sentence(report: Mapping[str, Any]) -> str:
  """Names who won and by how much: `rl`, the served one, against the others.

  A difference whose interval holds 0 is none: the two are level.

  Args:
    report: the content of `report.json`; differences that it lacks are left
      out.

  Returns:
    One or two sentences.
  """
  deltas = report['rerank']['deltas']
  found = {
    name: _outcomes(deltas.get(f'rl-{name}', {}))
    for name in ('prerank', 'evidence', 'sft')
  }
  told = [_told(found['prerank'], 'the incoming order')]
  if found['sft']['lost']:
    told.append('loses to SFT in ' + ' and '.join(found['sft']['lost']))
  first = ', and '.join(filter(None, told))
  second = _against_evidence(found['evidence'])
  if not first and not second:
    return 'The re-ranker (rl) was compared with nothing here.'
  subjects = ('The re-ranker (rl)', 'It' if first else 'The re-ranker (rl)')
  told = zip(subjects, (first, second), strict=True)
  return ' '.join(f'{subject} {text}.' for subject, text in told if text)


def warnings(report: Mapping[str, Any]) -> list[str]:
  """Warns where a run is degenerate, so that its numbers mean little.

  Args:
    report: the content of `report.json`; what it lacks is not judged.

  Returns:
    A sentence each: many users, items or texts dropped or cut (`kept.py`), few
    test lists, few traces, candidates from a small part of the catalogue, one
    item first nearly everywhere, an RL that ended early, or whose model is not
    its best validated one.
  """
  rerank, rl = report['rerank'], report.get('rl') or {}
  found = kept.warnings(report)
  if rerank['n'] < _LISTS:
    found.append(
      f'Only {rerank["n"]} test lists hold their target (below {_LISTS}): the '
      'differences are uncertain.'
    )
  traces = (report.get('traces') or {}).get('accepted', _TRACES)
  if traces < _TRACES:
    found.append(
      f'Only {traces} traces were accepted (below {_TRACES}): SFT '
      'memorises them.'
    )
  coverage = rerank.get('coverage', 1.0)
  if coverage < _COVERAGE:
    found.append(
      f'The candidates of all test lists are {coverage:.1%} of the catalogue '
      f'(below {_COVERAGE:.0%}): the retriever names the same few items to '
      'everybody.'
    )
  share = rerank.get('top_share', 0.0)
  if share > _TOP_SHARE:
    found.append(
      f'rl puts one and the same item first in {share:.0%} of the lists (above '
      f'{_TOP_SHARE:.0%}): it hardly depends on the user.'
    )
  if 'ended' in rl:
    found.append(rl['ended'])
  return found + _below_best(rl)


def _below_best(rl: Mapping[str, Any]) -> list[str]:
  """Warns of an RL model that did better in validation at another step."""
  names = ('valid_ndcg@5_exported', 'valid_ndcg@5_best')
  if not all(name in rl for name in names):
    return []
  own, best = (rl[name] for name in names)
  if own >= best:
    return []
  return [
    f'The RL model is below its best checkpoint (validated NDCG@5 {own:.4f} '
    f'against {best:.4f}): set rl.keep_best.'
  ]


def lines(report: Mapping[str, Any]) -> list[str]:
  """Returns the verdict and then each warning.

  Args:
    report: the content of `report.json`; of reports from before there were
      any, they are made here.
  """
  if 'verdict' in report:
    return [report['verdict'], *report['warnings']]
  return [sentence(report), *warnings(report)]
