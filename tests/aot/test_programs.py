"""The programs of a config, compiled for eight simulated devices."""

import functools
from collections import Counter

import jax
import pytest

from configs import tiny
from gr2_jax import sharding
from gr2_jax.aot import ahead, collectives, hlo, programs, roofline
from gr2_jax.aot import plan as plan_lib

slow = pytest.mark.slow  # Compiling four programs takes two minutes.


def _config():
  config = tiny.get_config()
  config.lm = {
    'width': 32,
    'layers': 2,
    'heads': 4,
    'kv_heads': 2,
    'head_dim': 16,
    'mlp_dim': 64,
    'bf16_matmul': True,
    'scan': True,
    'remat': True,
    'tie_embeddings': False,
  }
  config.text.pieces = 300
  config.text.prompt.max_tokens = 60
  config.midtrain.all.update(batch_size=8, length=16, microbatches=1)
  # The programs are those of lists that are written token by token.
  config.rl.update(
    prompt_buckets=(64,),
    explained_per_step=0,
    prompts_per_step=8,
    group_size=2,
    updates_per_rollout=2,
    microbatches=1,
    over_sampling=1.0,
  )
  return config


@functools.cache
def _plan():
  mesh = sharding.make_mesh(data=1, fsdp=4, tensor=2)
  return plan_lib.make(_config(), mesh)


@functools.cache
def _compiled(name):
  return programs.make(name, _plan()).lower().compile()


def _collectives(name):
  module = hlo.parse(_compiled(name).as_text())
  return collectives.find(module, devices=8)


@pytest.mark.parametrize('name', programs.NAMES)
def test_each_can_be_traced(name):
  program = programs.make(name, _plan())
  arguments = jax.tree.leaves(program.lower().in_avals)
  held = jax.tree.leaves(program.held)
  assert len(held) > 10
  found = Counter((x.shape, str(x.dtype)) for x in arguments)
  for x in held:
    found[x.shape, str(x.dtype)] -= 1
  assert min(found.values()) >= 0, found


@slow
@pytest.mark.parametrize('name', programs.NAMES)
def test_what_is_held_is_what_the_compiler_sees(name):
  held = programs.make(name, _plan()).held
  memory = _compiled(name).memory_analysis()
  known = plan_lib.chip_bytes(held)
  if name == 'prefill':
    # It makes no logits: their table is left out.
    known -= plan_lib.chip_bytes(held['parameters']['output'])
  # The rest are tokens, lists and keys; of decoding also `Samples.allowed`: 13
  # ids for each of 96 tokens of two answers to eight prompts, on four devices.
  rest = 20_000 + (4 * 8 * 2 * 96 * 13 // 4 if name == 'decode' else 0)
  assert known <= memory.argument_size_in_bytes < known + rest


@slow
def test_a_decoding_step_exchanges_no_weights_and_no_caches():
  found = _collectives('decode')
  state = 4 * (8 // 4 * 2) * 32
  # What crosses between the two devices that share a model is the state of each
  # row, or some numbers of it, but not its logits.
  assert {len(c.group) for c in found} == {2}
  assert max(c.operand for c in found) < 2 * state < _plan().vocab.size * 4
  # The sums behind attention and feed-forward, in each of two layers.
  sums = [c for c in found if 'dot_general' in c.source]
  assert {(c.kind, c.operand) for c in sums} == {('all-reduce', state)}
  assert sum(c.runs for c in sums) == 2 * 2


@slow
@pytest.mark.parametrize('name', ['train', 'update'])
def test_between_devices_that_split_heads_only_sums_cross(name):
  found = [c for c in _collectives(name) if c.group == (0, 1)]
  assert found and {c.kind for c in found} == {'all-reduce'}


@slow
def test_a_report_judges_each_program():
  places = tuple((x, y) for x in range(2) for y in range(4))
  chip = roofline.Chip('toy', 1e12, 1e9, 1e11, 1e10, ring=4)
  devices = roofline.Slice(chip, (2, 4), places)
  config, mesh = _config(), _plan().mesh
  report = ahead.report(config, devices, mesh, ['update', 'decode'])
  assert list(report['programs']) == ['update', 'decode']
  decode = report['programs']['decode']
  assert decode['fits'] and 0 < decode['bandwidth_share'] < 1
  memory = decode['memory']
  state = report['programs']['update']['memory']
  assert memory['beside'] == state['parameters'] + state['optimiser']
  assert memory['cache'] > 0
  assert not ahead.misfits(report)
  text = ahead.table(report)
  assert 'decode' in text and 'toy:2x4' in text
  report['programs']['decode']['fits'] = False
  (problem,) = ahead.misfits(report)
  assert problem.startswith('decode (8 prompts of 64') and 'toy chip' in problem
  assert 'a larger mesh.tensor' in problem
  with pytest.raises(ValueError, match="No program 'serve'"):
    ahead.report(config, devices, mesh, ['serve'])


def test_a_mesh_that_does_not_split_the_heads_is_named():
  mesh = sharding.make_mesh(data=1, fsdp=2, tensor=4)
  with pytest.raises(ValueError, match='tensor = 4, but the model has 2 key'):
    plan_lib.make(_config(), mesh)


def test_batches_that_do_not_divide_are_named():
  config = _config()
  config.midtrain.all.batch_size = 6
  plan = plan_lib.make(config, _plan().mesh)
  with pytest.raises(ValueError, match='batch_size = 6 rows do not'):
    programs.make('train', plan)


def test_shapes_alone_need_no_devices():
  """Nothing of a program is allocated, whatever its size."""
  before = len(jax.live_arrays())
  programs.make('train', _plan())
  assert len(jax.live_arrays()) <= before + 2
