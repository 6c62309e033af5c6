"""The curves of a sweep as one page: means over seeds, then every seed."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gr2_jax.report import charts, markup

# What `page.css` gives the charts of a page.
_STYLE = (
  'text{font:11px sans-serif;fill:#5c6b7a}.name{font-weight:600;fill:#1c2733}'
  '.grid{stroke:#e9eef2}.axis{stroke:#9aa7b3}'
)


def build(document: Mapping[str, Any]) -> str:
  """Writes the page.

  Args:
    document: `sweep.json` of a sweep with curves.

  Returns:
    The HTML document.
  """
  by_name = _by_name(document)
  changes = markup.table(
    ['run', 'seeds', 'changes'],
    [
      [
        name,
        ', '.join(str(run['seed']) for run in runs),
        ', '.join(f'{k}={v}' for k, v in runs[0]['changes'].items()),
      ]
      for name, runs in by_name.items()
    ],
  )
  means, seeds = [], []
  for metric in document['runs'][0]['curves']:
    lines = [_mean(name, metric, runs) for name, runs in by_name.items()]
    means.append(charts.line_chart(f'mean/{metric}', metric, lines))
    for name, runs in by_name.items():
      lines = [
        charts.Series(f'seed {run["seed"]}', *run['curves'][metric])
        for run in runs
      ]
      title = f'{name}: {metric}'
      seeds.append(charts.line_chart(f'{name}/{metric}', title, lines))
  return markup.frame(
    f'Sweep on {document["base"]["data"]["name"]}',
    changes,
    f'<h2>Means over seeds</h2><div class="charts">{"".join(means)}</div>'
    f'<h2>Every seed</h2><div class="charts">{"".join(seeds)}</div>'
    f'<h2>Base</h2>{markup.configuration(document["base"])}',
  )


def picture(document: Mapping[str, Any], metrics: Sequence[str]) -> str:
  """Draws means over seeds side by side, as an image for a README.

  Args:
    document: `sweep.json` of a sweep with curves.
    metrics: which of its curves.

  Returns:
    A standalone SVG.
  """
  by_name = _by_name(document)
  width, height, top = charts.WIDTH, charts.HEIGHT, 44
  parts = []
  for column, metric in enumerate(metrics):
    lines = [_mean(name, metric, runs) for name, runs in by_name.items()]
    drawn = charts.line_chart(metric, metric, lines)
    inner = re.search('(<svg.*</svg>)', drawn).group(1)
    x = column * width
    parts.append(
      f'<text class="name" x="{x + 14}" y="16">{html.escape(metric)}</text>'
      + inner.replace(
        '<svg', f'<svg x="{x}" y="{top}" width="{width}" height="{height}"', 1
      )
    )
  for row, name in enumerate(by_name):
    x = 14 + row * width * len(metrics) / len(by_name)
    parts.append(
      f'<rect x="{x:.0f}" y="25" width="10" height="10" '
      f'fill="{charts.COLOURS[row % len(charts.COLOURS)]}"/>'
      f'<text x="{x + 15:.0f}" y="34">{html.escape(name)}</text>'
    )
  size = f'{width * len(metrics)} {top + height}'
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">'
    f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    f'{"".join(parts)}</svg>\n'
  )


def _by_name(document: Mapping[str, Any]) -> dict[str, list[Mapping]]:
  found: dict[str, list[Mapping]] = {}
  for run in document['runs']:
    found.setdefault(run['name'], []).append(run)
  return found


def _mean(name: str, metric: str, runs: Sequence[Mapping]) -> charts.Series:
  """Averages over seeds, up to the last step that all of them reached."""
  curves = [dict(zip(*run['curves'][metric], strict=True)) for run in runs]
  steps = sorted(set.intersection(*map(set, curves)))
  values = [float(np.mean([curve[s] for curve in curves])) for s in steps]
  return charts.Series(name, steps, values)
