"""Estimates on numbers computed by hand."""

import types

import pytest

from gr2_jax.aot import roofline

CHIP = roofline.Chip('toy', 100.0, 1000.0, 10.0, 1.0, ring=4)
# 2 x 4 chips in rows.
PLACES = tuple((x, y) for x in range(2) for y in range(4))
SLICE = roofline.Slice(CHIP, (2, 4), PLACES)
TEXT = """HloModule m

ENTRY %main (x: f32[6]) -> f32[12] {
  %x = f32[6]{0} parameter(0)
  ROOT %y = f32[12]{0} all-gather(%x), replica_groups=[4,2]<=[2,4]T(1,0)
}
"""


def test_links_of_a_group():
  # A ring of four, a line of two, a part of the ring, and all chips.
  assert SLICE.speed((0, 1, 2, 3)) == 2.0
  assert SLICE.speed((0, 4)) == 1.0
  assert SLICE.speed((0, 1)) == 1.0
  assert SLICE.speed(range(8)) == 3.0


def test_the_largest_of_three_times_is_the_bound():
  # Gathering brings 24 bytes over one link: 24 s. Memory: 24 + 48 bytes at
  # 10 a second. Arithmetic by formula.
  work = roofline.Work(flops=8 * 1200.0, executed=8 * 1600.0, streamed=60.0)
  found = roofline.estimate(TEXT, work, SLICE)
  assert found['interconnect_seconds'] == 24.0
  assert found['memory_seconds'] == pytest.approx(7.2)
  assert found['arithmetic_seconds'] == 16.0
  assert (found['bound'], found['seconds']) == ('interconnect', 24.0)
  assert found['mfu'] == pytest.approx(0.5)
  assert found['bandwidth_share'] == pytest.approx(0.25)
  assert [c['kind'] for c in found['collectives']] == ['all-gather']
  more = roofline.Work(flops=8 * 3000.0, executed=8 * 4000.0)
  found = roofline.estimate(TEXT, more, SLICE)
  assert (found['bound'], found['mfu']) == ('arithmetic', 0.75)


def test_memory_adds_up():
  analysis = types.SimpleNamespace(
    argument_size_in_bytes=110,
    output_size_in_bytes=70,
    alias_size_in_bytes=60,
    temp_size_in_bytes=25,
    generated_code_size_in_bytes=5,
  )
  held = roofline.memory(
    analysis, {'parameters': 40.0, 'optimiser': 60.0}, {'cache': 8.0}, 7.0
  )
  assert held == {
    'parameters': 40.0,
    'optimiser': 60.0,
    'cache': 8.0,
    'inputs': 10.0,
    'outputs': 2.0,
    'temporaries': 30,
    'beside': 7.0,
    'total': 157.0,
  }


def test_topologies():
  assert roofline.parse_topology('v5p:2x2x1')[1] == (2, 2, 1)
  assert roofline.parse_topology('v5e:8x8')[0].flops == 197e12
  for name in ('v2:8x8', 'v5e', 'v5e:8xy'):
    with pytest.raises(ValueError, match=f'Topology {name!r}: give a chip'):
      roofline.parse_topology(name)
