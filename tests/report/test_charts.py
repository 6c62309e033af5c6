import hypothesis
import pytest
from hypothesis import strategies as st

from gr2_jax.report import charts, curves, intervals


def test_ticks_by_hand():
  assert charts.ticks(0.0, 1.0) == pytest.approx([0, 0.5, 1.0])
  assert charts.ticks(0.0, 4.0) == pytest.approx([0, 1, 2, 3, 4])
  assert charts.ticks(-0.12, 0.33)[0] == pytest.approx(-0.2)


@hypothesis.given(
  st.floats(-1e6, 1e6), st.floats(0, 1e6).map(lambda x: round(x, 3))
)
def test_ticks_cover_the_values(low, width):
  marks = charts.ticks(low, low + width)
  slack = 1e-6 * max(abs(low), width, 1)
  assert marks[0] <= low + slack and marks[-1] >= low + width - slack
  assert 2 <= len(marks) <= 12


def test_smooth_by_hand():
  assert charts.smooth([0, 3, 6, 9], 3) == [1.5, 3, 6, 7.5]


def test_a_chart_says_what_it_drew():
  lines = [
    charts.Series('a<b', [1, 2, 3], [0.5, 0.1, 0.2]),
    charts.Series('c', [1], [0.3]),
  ]
  drawn = charts.line_chart('x/y', 'Title & more', lines)
  assert 'data-chart="x/y" data-series="2" data-points="4"' in drawn
  assert drawn.count('<polyline') == 2 and drawn.count('<circle') == 4
  assert 'a&lt;b' in drawn and 'Title &amp; more' in drawn
  assert 'nan' not in drawn and 'inf' not in drawn


def test_higher_values_are_drawn_higher():
  drawn = charts.line_chart('n', 't', [charts.Series('a', [0, 1], [0, 10])])
  points = drawn.split('points="')[-1].split('"')[0].split()
  (x0, y0), (x1, y1) = [map(float, p.split(',')) for p in points]
  assert x0 < x1 and y0 > y1


def test_long_lines_are_thinned_and_smoothed():
  line = charts.Series('a', list(range(5000)), [i % 7 for i in range(5000)])
  drawn = charts.line_chart('n', 't', [line])
  assert drawn.count('<polyline') == 2 and len(drawn) < 30_000
  assert 'data-points="5000"' in drawn


def test_one_point_or_equal_values_are_drawn():
  for line in ([3], [2.0]), ([1, 2], [0.0, 0.0]):
    drawn = charts.line_chart('n', 't', [charts.Series('a', *line)])
    assert '<circle' in drawn and 'nan' not in drawn


def test_nothing_to_draw_is_an_error():
  with pytest.raises(ValueError, match="'sft/loss' has no points"):
    charts.line_chart('sft/loss', 't', [])


def test_intervals_show_every_metric():
  drawn = intervals.chart(
    'n', 't', {'R@1': [0.02, 0.01, 0.03], 'N@5': [-0.01, -0.02, 0.01]}
  )
  assert drawn.count('<circle') == 2 and 'R@1' in drawn


def test_curves_are_drawn_for_what_was_recorded(workdir):
  sections = dict(curves.draw(workdir))
  assert 'Mid-training: only the new rows' not in sections
  rl = ''.join(sections['RL: DAPO'])
  for title in ('Reward', 'Entropy', 'Clip fraction', 'Identity'):
    assert f'data-chart="rl/{title}' in rl
  assert 'Answer length' not in rl
  assert 'next_item' in ''.join(sections['Mid-training'])
