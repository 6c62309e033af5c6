"""The text of compiled programs: parts, sizes, how often each part runs."""

import jax
import jax.numpy as jnp
import pytest

from gr2_jax.aot import hlo

TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=8

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8,4], /*index=2*/bf16[3])) -> (s32[], f32[8,4], bf16[3]) {
  %state = (s32[], f32[8,4]{1,0:T(8,128)}, /*index=2*/bf16[3]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,4]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %y = bf16[3]{0} get-tuple-element(%state), index=2
  %r = f32[8,4]{1,0:T(8,128)} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %out = (s32[], f32[8,4]{1,0:T(8,128)}, bf16[3]{0}) tuple(%i, %r, %y)
}

%condition (state: (s32[], f32[8,4], bf16[3])) -> pred[] {
  %state.1 = (s32[], f32[8,4]{1,0}, bf16[3]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(6)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (start: (s32[], f32[8,4], bf16[3])) -> (s32[], f32[8,4], bf16[3]) {
  %start = (s32[], f32[8,4]{1,0}, bf16[3]{0}) parameter(0)
  ROOT %loop = (s32[], f32[8,4]{1,0}, bf16[3]{0}) while(%start), condition=%condition, body=%body
}
"""  # noqa: E501


def test_parts_are_read():
  module = hlo.parse(TEXT)
  assert module.entry == 'main'
  assert list(module.computations) == ['sum', 'body', 'condition', 'main']
  op = module.computations['body']['r']
  assert (op.kind, op.operands, op.root) == ('all-reduce', ('x',), False)
  assert hlo.size(op.type) == 8 * 4 * 4
  assert hlo.called(op) == [('to_apply', 'sum')]
  state = module.computations['body']['state']
  assert hlo.size(state.type) == 4 + 8 * 4 * 4 + 3 * 2
  assert module.computations['main']['loop'].root


def test_a_loop_counts_as_often_as_it_goes_round():
  assert hlo.runs(hlo.parse(TEXT)) == {
    'sum': 6,
    'body': 6,
    'condition': 7,
    'main': 1,
  }
  known = TEXT.replace(
    'body=%body',
    'body=%body, backend_config={"known_trip_count":{"n":"5"}}',
  )
  assert hlo.runs(hlo.parse(known))['body'] == 5


def test_a_loop_of_unknown_length_is_refused():
  with pytest.raises(ValueError, match='how often the loop loop iterates'):
    hlo.runs(hlo.parse(TEXT.replace('constant(6)', 'negate(%i.1)')))
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse('HloModule empty')


def test_scans_inside_of_scans_multiply():
  def inner(x, _):
    return jnp.sin(x) @ x, None

  def outer(x, _):
    return jax.lax.scan(inner, x, length=3)[0], None

  run = jax.jit(lambda x: jax.lax.scan(outer, x, length=5)[0])
  text = run.lower(jnp.ones((16, 16))).compile().as_text()
  module = hlo.parse(text)
  runs = hlo.runs(module)
  dots = [
    runs[name]
    for name, ops in module.computations.items()
    for op in ops.values()
    if op.kind == 'dot'
  ]
  assert dots == [15]


@pytest.mark.parametrize(
  ('kind', 'size'),
  [
    ('f32[]', 4),
    ('bf16[8,128]{1,0:T(8,128)(2,1)S(1)}', 2048),
    ('(f32[4]{0}, (u8[3], pred[2]), token[])', 16 + 3 + 2),
    ('f8e4m3fn[10]', 10),
  ],
)
def test_sizes(kind, size):
  assert hlo.size(kind) == size
