"""Bytes through main memory, on numbers computed by hand."""

import pytest

from gr2_jax.aot import hlo, traffic

LOOP = """HloModule m

%slice (stack: bf16[4,64], i: s32[]) -> bf16[64] {{
  %stack = bf16[4,64]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
  %row = bf16[1,64]{{1,0}} dynamic-slice(%stack, %i, %i)
  ROOT %view = bf16[64]{{0}} bitcast(%row)
}}

%put (cache: f32[4,8], new: f32[1,8], i: s32[]) -> f32[4,8] {{
  %cache = f32[4,8]{{1,0}} parameter(0)
  %new = f32[1,8]{{1,0}} parameter(1)
  %j = s32[] parameter(2)
  ROOT %set = f32[4,8]{{1,0}} dynamic-update-slice(%cache, %new, %j, %j)
}}

%view (table: bf16[4,64]) -> bf16[256] {{
  %table = bf16[4,64]{{1,0}} parameter(0)
  ROOT %flat = bf16[256]{{0}} bitcast(%table)
}}

%nested (stack.1: bf16[4,64], i.1: s32[], table.1: bf16[4,64]) -> bf16[64] {{
  %stack.1 = bf16[4,64]{{1,0}} parameter(0)
  %i.1 = s32[] parameter(1)
  %table.1 = bf16[4,64]{{1,0}} parameter(2)
  %one = bf16[64]{{0}} fusion(%stack.1, %i.1), kind=kLoop, calls=%slice
  %all = bf16[256]{{0}} fusion(%table.1), kind=kLoop, calls=%view
  ROOT %dot = bf16[64]{{0}} custom-call(%one, %all)
}}

ENTRY %main (a: bf16[4,64], b: f32[4,8], c: f32[1,8], i: s32[]) -> f32[4,8] {{
  %a = bf16[4,64]{{1,0}} parameter(0)
  %b = f32[4,8]{{1,0}} parameter(1)
  %c = f32[1,8]{{1,0}} parameter(2)
  %k = s32[] parameter(3)
  {text}
}}
"""


@pytest.mark.parametrize(
  ('text', 'size'),
  [
    # One of four rows, and the result; and the index.
    (
      'ROOT %f = bf16[64]{0} fusion(%a, %k), kind=kLoop, calls=%slice',
      128 + 128 + 4,
    ),
    # The new row is read and written; the cache stays where it is.
    (
      'ROOT %f = f32[4,8]{1,0} fusion(%b, %c, %k), kind=kLoop, calls=%put',
      32 + 32 + 4,
    ),
    # One row of the first stack, the whole second, the index, the result.
    (
      'ROOT %f = bf16[64]{0} fusion(%a, %k, %a), kind=kOutput, calls=%nested',
      128 + 512 + 4 + 128,
    ),
    ('ROOT %s = f32[4,8]{1,0} add(%b, %b)', 3 * 128),
    ('ROOT %s = bf16[64]{0} custom-call(), target="AllocateBuffer"', 0),
    # What goes to fast memory is read, and not written.
    ('ROOT %s = f32[4,8]{1,0:S(1)} copy(%b)', 128),
    ('ROOT %s = bf16[1,64]{1,0} dynamic-slice(%a, %k, %k)', 256),
    ('ROOT %s = bf16[256]{0} bitcast(%a)', 0),
  ],
)
def test_instructions(text, size):
  assert traffic.hbm_bytes(hlo.parse(LOOP.format(text=text))) == size
