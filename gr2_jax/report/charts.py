"""Line charts as static SVG: no script, nothing to load.

Each chart is an `<svg class="chart">` whose `data-chart`, `data-series` and
`data-points` say what was drawn.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

# Every chart begins so.
MARK = '<svg class="chart"'

WIDTH, HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 20, 12, 34
# Okabe and Ito (2008): told apart by the colour-blind, too.
COLOURS = (
  '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000',
)  # fmt: skip
# From this many points on a line is drawn pale under its moving mean.
_SMOOTH = 24
_MAX_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Series:
  """One line.

  Attributes:
    name: in the legend.
    x: places, rising.
    y: values, as many; finite.
  """

  name: str
  x: Sequence[float]
  y: Sequence[float]


def ticks(low: float, high: float) -> list[float]:
  """Returns about five round numbers that cover low..high.

  Args:
    low: smallest value.
    high: largest value, not below `low`.

  Returns:
    Evenly spaced multiples of 1, 2 or 5 times a power of ten; the first is not
    above `low` and the last not below `high`.
  """
  if low == high:
    room = abs(low) * 0.1 or 1.0
    low, high = low - room, high + room
  raw = (high - low) / 4
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
  first = math.floor(low / step + 1e-9)
  last = math.ceil(high / step - 1e-9)
  return [i * step for i in range(first, last + 1)]


def smooth(values: Sequence[float], window: int) -> list[float]:
  """Returns centred moving means, over fewer values at the ends."""
  half = window // 2
  means = []
  for i in range(len(values)):
    part = values[max(0, i - half) : i + half + 1]
    means.append(sum(part) / len(part))
  return means


def _thin(series: Series) -> Series:
  stride = -(-len(series.x) // _MAX_POINTS)
  return Series(series.name, series.x[::stride], series.y[::stride])


def label(value: float, step: float) -> str:
  """Writes a tick with the digits that its step needs."""
  if value and abs(value) >= 10_000:
    return f'{value / 1000:g}k'
  digits = max(0, -math.floor(math.log10(step) + 1e-9))
  return f'{value:.{digits}f}' if digits < 6 else f'{value:.0e}'


class _Frame:
  """Maps values to pixels."""

  def __init__(self, lines: Sequence[Series]):
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    self.x_ticks = ticks(min(xs), max(xs))
    self.y_ticks = ticks(min(ys), max(ys))
    self._x0, self._x1 = min(xs), max(xs)
    if self._x0 == self._x1:
      self._x0, self._x1 = self.x_ticks[0], self.x_ticks[-1]
    self.x_ticks = [t for t in self.x_ticks if self._x0 <= t <= self._x1]

  def x(self, value: float) -> float:
    share = (value - self._x0) / (self._x1 - self._x0)
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

  def y(self, value: float) -> float:
    low, high = self.y_ticks[0], self.y_ticks[-1]
    share = (value - low) / (high - low)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _axes(frame: _Frame, x_label: str) -> list[str]:
  parts = []
  step = frame.y_ticks[1] - frame.y_ticks[0]
  for tick in frame.y_ticks:
    y = frame.y(tick)
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" '
      f'y1="{y:.1f}" y2="{y:.1f}"/><text class="tick" x="{_LEFT - 6}" '
      f'y="{y + 3.5:.1f}" text-anchor="end">{label(tick, step)}</text>'
    )
  base = HEIGHT - _BOTTOM
  marks = frame.x_ticks
  step = marks[1] - marks[0] if len(marks) > 1 else 1.0
  for tick in marks:
    x = frame.x(tick)
    parts.append(
      f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" '
      f'y2="{base + 4}"/><text class="tick" x="{x:.1f}" y="{base + 15}" '
      f'text-anchor="middle">{label(tick, step)}</text>'
    )
  parts.append(
    f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" '
    f'y2="{base}"/><text class="tick" x="{(_LEFT + WIDTH - _RIGHT) / 2}" '
    f'y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>'
  )
  return parts


def _line(frame: _Frame, line: Series, colour: str, pale: bool) -> str:
  points = ' '.join(
    f'{frame.x(x):.1f},{frame.y(y):.1f}'
    for x, y in zip(line.x, line.y, strict=True)
  )
  style = 'stroke-width="1" opacity="0.3"' if pale else 'stroke-width="2"'
  drawn = (
    f'<polyline fill="none" stroke="{colour}" stroke-linejoin="round" '
    f'{style} points="{points}"/>'
  )
  if len(line.x) <= _SMOOTH and not pale:
    for x, y in zip(line.x, line.y, strict=True):
      drawn += (
        f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.6" '
        f'fill="{colour}"><title>{html.escape(line.name)}: {y:.4g} at '
        f'{x:g}</title></circle>'
      )
  return drawn


def line_chart(
  name: str, title: str, lines: Sequence[Series], x_label: str = 'step'
) -> str:
  """Draws lines over common axes.

  Args:
    name: value of `data-chart`, unlike that of other charts.
    title: heading; text, escaped here.
    lines: what to draw; at least one, none empty.
    x_label: below the axis.

  Returns:
    HTML: a `<figure>` with title, legend and SVG.

  Raises:
    ValueError: nothing to draw, by the name of the chart.
  """
  if not lines or any(not line.x for line in lines):
    raise ValueError(f'Chart {name!r} has no points; leave it out.')
  frame = _Frame(lines)
  parts = _axes(frame, x_label)
  legend = []
  for i, line in enumerate(lines):
    colour = COLOURS[i % len(COLOURS)]
    if len(line.x) >= _SMOOTH:
      parts.append(_line(frame, _thin(line), colour, pale=True))
      means = smooth(line.y, max(5, len(line.y) // 12))
      line = Series(line.name, line.x, means)
    parts.append(_line(frame, _thin(line), colour, pale=False))
    legend.append(
      f'<span><i style="background:{colour}"></i>{html.escape(line.name)}'
      '</span>'
    )
  points = sum(len(line.x) for line in lines)
  names = ''.join(legend) if len(lines) > 1 else ''
  return figure(
    name, title, names, parts, (WIDTH, HEIGHT), series=len(lines), points=points
  )


def figure(
  name: str,
  title: str,
  legend: str,
  parts: Sequence[str],
  size: tuple[float, float],
  *,
  series: int,
  points: int,
) -> str:
  """Frames a chart.

  Args:
    name: value of `data-chart`.
    title: heading; text, escaped here.
    legend: HTML.
    parts: SVG elements.
    size: width and height of the drawing.
    series: how many lines or kinds it has.
    points: how many values it shows.

  Returns:
    HTML: a `<figure>`.
  """
  return (
    f'<figure><figcaption>{html.escape(title)}<div class="legend">{legend}'
    f'</div></figcaption>{MARK} data-chart="{html.escape(name)}" '
    f'data-series="{series}" data-points="{points}" '
    f'viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" '
    f'aria-label="{html.escape(title)}">{"".join(parts)}</svg></figure>'
  )
