"""Collectives: found in compiled programs, counted through loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gr2_jax import sharding
from gr2_jax.aot import collectives, hlo


def _found(run, *args):
  text = jax.jit(run).lower(*args).compile().as_text()
  return collectives.find(hlo.parse(text), devices=8)


def test_a_gather_inside_of_a_scan_counts_as_often_as_it_runs():
  mesh = sharding.make_mesh(data=2, fsdp=4)

  def layer(x, weights):
    # Each device has a quarter of a layer's rows, and needs all of them.
    return jnp.tanh(x @ jax.lax.all_gather(weights, 'fsdp', tiled=True)), None

  def run(x, weights):
    return jax.lax.scan(layer, x, weights)[0]

  split = jax.shard_map(
    run,
    mesh=mesh,
    in_specs=(PartitionSpec('data'), PartitionSpec(None, 'fsdp')),
    out_specs=PartitionSpec('data'),
    check_vma=False,
  )
  found = _found(split, np.ones((2, 16), np.float32), np.ones((4, 16, 16)))
  assert [(c.kind, c.operand, c.runs) for c in found] == [
    ('all-gather', 4 * 16 * 4, 4)
  ]
  assert found[0].group == (0, 1, 2, 3)
  # From three others, in each of four layers.
  assert found[0].wire == 4 * 3 * (4 * 16 * 4)
  assert 'all_gather' in found[0].source


def test_a_sum_over_devices_is_found():
  rows = sharding.batch_sharding(sharding.make_mesh(data=2, fsdp=4))
  x = jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=rows)
  found = _found(lambda x: x.sum(0), x)
  assert [(c.kind, c.operand, len(c.group)) for c in found] == [
    ('all-reduce', 6 * 4, 8)
  ]
  assert found[0].wire == 2 * 24 * 7 / 8


def _line(text):
  return hlo.parse(f"""HloModule m
ENTRY %main (x: f32[6]) -> f32[6] {{
  %x = f32[6]{{0}} parameter(0)
  ROOT %y = {text}
}}
""")


@pytest.mark.parametrize(
  ('text', 'kind', 'group', 'wire'),
  [
    (
      'f32[3]{0} reduce-scatter(%x), replica_groups={{0,2},{1,3}}',
      'reduce-scatter',
      (0, 2),
      12,
    ),
    (
      'f32[6]{0} all-to-all(%x), replica_groups=[2,4]<=[4,2]T(1,0)',
      'all-to-all',
      (0, 2, 4, 6),
      18,
    ),
    (
      'f32[6]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}',
      'collective-permute',
      (0, 1),
      24,
    ),
    (
      '(f32[6]{0}, f32[48]{0}) all-gather-start(%x), replica_groups={}',
      'all-gather',
      tuple(range(8)),
      168,
    ),
    ('f32[6]{0} all-reduce(%x), replica_groups=[8,1]<=[8]', None, (), 0),
    (
      "f32[6]{0} all-reduce(%x), replica_groups=mesh['a'=4,'b'=2] {'b'}",
      'all-reduce',
      (0, 1),
      24,
    ),
    (
      "f32[6]{0} all-reduce(%x), replica_groups=mesh['a'=2,'b'=4], "
      "device_ids=([4,2]T(1,0)) {'a'}",
      'all-reduce',
      (0, 1),
      24,
    ),
    (
      "f32[6]{0} all-reduce(%x), replica_groups=mesh['a'=8] {'a':(2)2}",
      'all-reduce',
      (0, 2),
      24,
    ),
  ],
)
def test_groups_and_bytes(text, kind, group, wire):
  found = collectives.find(_line(text), devices=8)
  assert [(c.kind, c.group, c.wire) for c in found] == (
    [(kind, group, wire)] if kind else []
  )


def test_groups_in_an_unknown_form_are_refused():
  odd = _line('f32[6]{0} all-reduce(%x), replica_groups=some{0,1}')
  with pytest.raises(ValueError, match='Unknown form of groups'):
    collectives.find(odd, devices=8)
