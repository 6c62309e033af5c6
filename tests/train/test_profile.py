"""Which steps are traced, and that the trace is written."""

import re

import jax
import jax.numpy as jnp
import pytest

from gr2_jax.train import profile


@pytest.mark.parametrize('steps', ['', '3', '3:', '0:2', '4:3', 'a:b', '1:2:3'])
def test_what_is_no_range_of_steps(steps):
  with pytest.raises(ValueError, match='first and the last step'):
    profile.parse(steps)
  assert profile.parse('10:12') == (10, 12)


@pytest.fixture
def calls(monkeypatch):
  """What the profiler was told."""
  told = []
  start = lambda directory, **_: told.append(directory)
  monkeypatch.setattr(jax.profiler, 'start_trace', start)
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: told.append('stop'))
  return told


def _run(calls, steps, last, first=1):
  with profile.Profiler(steps, 'there') as profiler:
    for number in range(first, last + 1):
      profiler.run(number, calls.append, number)


@pytest.mark.parametrize(
  ('steps', 'told'),
  [
    ('2:3', [1, 'there', 2, 3, 'stop', 4]),
    ('4:4', [1, 2, 3, 'there', 4, 'stop']),
    # The training ends before the trace does.
    ('4:9', [1, 2, 3, 'there', 4, 'stop']),
    ('5:9', [1, 2, 3, 4]),
    ('', [1, 2, 3, 4]),
  ],
)
def test_the_steps_asked_for_are_traced(calls, steps, told):
  _run(calls, steps, 4)
  assert calls == told


def test_a_resumed_training_traces_what_is_left(calls):
  _run(calls, '2:3', 4, first=3)
  assert calls == ['there', 3, 'stop', 4]


def test_an_error_ends_the_trace(calls):
  with pytest.raises(ZeroDivisionError):
    with profile.Profiler('1:2', 'there') as profiler:
      profiler.run(1, lambda: 1 / 0)
  assert calls == ['there', 'stop']


def test_a_trace_is_what_xprof_reads(tmp_path):
  step = jax.jit(lambda x: x @ x)
  x = jnp.ones((8, 8))
  with profile.Profiler('1:2', tmp_path) as profiler:
    for number in (1, 2):
      profiler.run(number, step, x)
  (trace,) = tmp_path.glob('plugins/profile/*/*.xplane.pb')
  # The annotation of a step, by which XProf splits time.
  assert b'step_num' in trace.read_bytes()
  # A call as the Python tracer names it, which threads crash that come and go.
  assert not re.search(rb'\$\w+\.py:', trace.read_bytes())
