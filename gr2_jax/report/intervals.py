"""Differences with their intervals, as a static SVG chart."""

import html
from collections.abc import Mapping, Sequence

from gr2_jax.report import charts

_WIDTH, _ROW, _LEFT, _RIGHT, _BOTTOM = 420, 26, 54, 16, 26


def chart(name: str, title: str, values: Mapping[str, Sequence[float]]) -> str:
  """Draws one bar with a dot for each metric, and a line at zero.

  Args:
    name: value of `data-chart`.
    title: heading; text, escaped here.
    values: metric to [delta, low, high]; at least one.

  Returns:
    HTML: a `<figure>` with title and SVG.
  """
  low = min(0.0, *(triple[1] for triple in values.values()))
  high = max(0.0, *(triple[2] for triple in values.values()))
  marks = charts.ticks(low, high)
  low, high = marks[0], marks[-1]

  def x(value: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

  base = _ROW * len(values) + 6
  parts = []
  for mark in marks:
    kind = 'axis' if abs(mark) < 1e-12 else 'grid'
    parts.append(
      f'<line class="{kind}" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="4" '
      f'y2="{base}"/><text class="tick" x="{x(mark):.1f}" y="{base + 15}" '
      f'text-anchor="middle">{charts.label(mark, marks[1] - marks[0])}</text>'
    )
  for row, (metric, (delta, start, end)) in enumerate(values.items()):
    y = _ROW * row + 6 + _ROW / 2
    colour = '#009e73' if start > 0 else '#d55e00' if end < 0 else '#5c6b7a'
    parts.append(
      f'<text class="tick" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">'
      f'{html.escape(metric)}</text><line x1="{x(start):.1f}" '
      f'x2="{x(end):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
      f'stroke-width="3" stroke-linecap="round"/><circle cx="{x(delta):.1f}" '
      f'cy="{y}" r="4.5" fill="{colour}"><title>{delta:+.4f} '
      f'[{start:+.4f}, {end:+.4f}]</title></circle>'
    )
  return charts.figure(
    name,
    title,
    '',
    parts,
    (_WIDTH, base + _BOTTOM),
    series=len(values),
    points=len(values),
  )
