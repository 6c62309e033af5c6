"""GGUF tensors: every type against a scalar reading of its block format."""

import gguf
import numpy as np
import pytest

from gr2_jax.lm import gguf_file

KIND = gguf.GGMLQuantizationType


def write(path, tensors, byte_order=gguf.GGUFEndian.LITTLE, **numbers):
  """Writes {name: (array, type)}; quantised arrays are their bytes."""
  writer = gguf.GGUFWriter(path, 'llama', endianess=byte_order)
  for key, value in numbers.items():
    writer.add_uint16(key.replace('_', '.'), value)
  for name, (array, kind) in tensors.items():
    writer.add_tensor(name, array, raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def half(block, start):
  return float(block[start : start + 2].view(np.float16)[0])


def q8_0(b):
  return [half(b, 0) * int(q) for q in b[2:].view(np.int8)]


def nibbles(b):
  return [int(x) & 15 for x in b] + [int(x) >> 4 for x in b]


def fifth_bits(b):
  word = int.from_bytes(b.tobytes(), 'little')
  return [(word >> i & 1) << 4 for i in range(32)]


def q4_0(b):
  return [half(b, 0) * (q - 8) for q in nibbles(b[2:])]


def q4_1(b):
  return [half(b, 0) * q + half(b, 2) for q in nibbles(b[4:])]


def q5_0(b):
  pairs = zip(nibbles(b[6:]), fifth_bits(b[2:6]), strict=True)
  return [half(b, 0) * (low + high - 16) for low, high in pairs]


def q5_1(b):
  pairs = zip(nibbles(b[8:]), fifth_bits(b[4:8]), strict=True)
  return [half(b, 0) * (low + high) + half(b, 2) for low, high in pairs]


def scale_and_min(packed, j):
  """Sub-block j's two numbers of six bits; the last four are in two pieces."""
  p = [int(x) for x in packed]
  if j < 4:
    return p[j] & 63, p[j + 4] & 63
  return (
    p[j + 4] & 15 | p[j - 4] >> 6 << 4,
    p[j + 4] >> 4 | p[j] >> 6 << 4,
  )


def q4_k(b, fifth=None):
  out = []
  values = b[-128:]
  for j in range(8):
    scale, least = scale_and_min(b[4:16], j)
    for i in range(32):
      q = int(values[j // 2 * 32 + i]) >> 4 * (j % 2) & 15
      if fifth is not None:
        q += (int(fifth[i]) >> j & 1) << 4
      out.append(half(b, 0) * scale * q - half(b, 2) * least)
  return out


def q5_k(b):
  return q4_k(b, fifth=b[16:48])


def q6_k(b):
  low, high, scales = b[:128], b[128:192], b[192:208].view(np.int8)
  out = []
  for i in range(256):
    part, quarter, place = i // 128, i // 32 % 4, i % 32
    q = int(low[64 * part + 32 * (quarter % 2) + place])
    q = q >> 4 * (quarter // 2) & 15
    q |= (int(high[32 * part + place]) >> 2 * quarter & 3) << 4
    out.append(half(b, 208) * int(scales[i // 16]) * (q - 32))
  return out


# Type: (values a block, bytes a block, places of its float16, dequantiser).
BLOCKS = {
  'Q8_0': (32, 34, (0,), q8_0),
  'Q5_0': (32, 22, (0,), q5_0),
  'Q5_1': (32, 24, (0, 2), q5_1),
  'Q4_0': (32, 18, (0,), q4_0),
  'Q4_1': (32, 20, (0, 2), q4_1),
  'Q4_K': (256, 144, (0, 2), q4_k),
  'Q5_K': (256, 176, (0, 2), q5_k),
  'Q6_K': (256, 210, (208,), q6_k),
}


@pytest.mark.parametrize('name', BLOCKS)
def test_quantised_blocks(tmp_path, monkeypatch, name):
  monkeypatch.setattr(gguf_file, '_ROWS', 2)
  values, size, halves, dequantise = BLOCKS[name]
  rng = np.random.default_rng(0)
  data = rng.integers(0, 256, (5, 3, size), np.uint8)
  for place in halves:
    scales = rng.uniform(0.01, 1, (5, 3, 1)).astype(np.float16)
    data[..., place : place + 2] = scales.view(np.uint8)
  want = [[dequantise(block) for block in row] for row in data]
  want = np.array(want, np.float32).reshape(5, 3 * values)
  stored = {'w': (data.reshape(5, -1), KIND[name])}
  file = gguf_file.File(write(tmp_path / 'a.gguf', stored))
  assert file.shapes == {'w': want.shape}
  got = file.read('w')
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-4)
  rows = np.array([4, 0, 3, 1, 2])
  file = gguf_file.File(tmp_path / 'a.gguf')
  np.testing.assert_array_equal(file.read('w', rows), got[rows])


@pytest.mark.parametrize('name', [n for n in BLOCKS if not n.endswith('K')])
def test_quantised_weights_are_near_the_weights(tmp_path, name):
  x = np.random.default_rng(0).uniform(-1, 1, (4, 64)).astype(np.float32)
  data = gguf.quants.quantize(x, KIND[name])
  path = write(tmp_path / 'a.gguf', {'w': (data, KIND[name])})
  step = 2 / {'Q8': 255, 'Q5': 31, 'Q4': 15}[name[:2]]
  np.testing.assert_allclose(gguf_file.File(path).read('w'), x, atol=step)


@pytest.mark.parametrize('shape', [(6, 4), (8,)])
def test_plain_types(tmp_path, shape):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  # The upper half of a float32 is a bfloat16.
  bits = x.view(np.uint32) & np.uint32(0xFFFF0000)
  upper = np.ascontiguousarray(bits.view(np.uint16).reshape(*shape, 2)[..., 1])
  tensors = {
    'f32': (x, KIND.F32),
    'f16': (x.astype(np.float16), KIND.F16),
    'bf16': (upper.view(np.uint8), KIND.BF16),
  }
  file = gguf_file.File(write(tmp_path / 'a.gguf', tensors))
  assert set(file.shapes.values()) == {shape}
  rows = np.random.default_rng(1).permutation(shape[0])
  again = gguf_file.File(file.path)
  for name, want in (
    ('f32', x),
    ('f16', x.astype(np.float16).astype(np.float32)),
    ('bf16', bits.view(np.float32)),
  ):
    np.testing.assert_array_equal(file.read(name), want)
    np.testing.assert_array_equal(again.read(name, rows), want[rows])


def test_only_the_last_tensor_is_kept(tmp_path, monkeypatch):
  x = np.ones((2, 2), np.float32)
  stored = {name: (x, KIND.F32) for name in 'ab'}
  file = gguf_file.File(write(tmp_path / 'a.gguf', stored))
  read, whole = [], gguf.quants.dequantize
  monkeypatch.setattr(
    gguf.quants, 'dequantize', lambda *a: read.append(1) or whole(*a)
  )
  counts = []
  for name in 'aabba':
    file.read(name)
    counts.append(len(read))
  assert counts == [1, 1, 2, 2, 3]


def test_errors_name_file_and_tensor(tmp_path):
  path = tmp_path / 'a.gguf'
  with pytest.raises(FileNotFoundError):
    gguf_file.File(path)
  for content in (b'', b'no model', b'GGUF\x03\x00\x00\x00'):
    path.write_bytes(content)
    with pytest.raises(ValueError, match='a.gguf is (empty|not a GGUF file)'):
      gguf_file.File(path)
  block = np.zeros((1, 66), np.uint8)
  write(path, {'blk.0.ffn_up.weight': (block, KIND.IQ2_XXS)})
  with pytest.raises(ValueError, match='ffn_up.weight is of type IQ2_XXS'):
    gguf_file.File(path)
  x = np.ones((64, 64), np.float32)
  whole = write(path, {'w': (x, KIND.F32)}).read_bytes()
  path.write_bytes(whole[:-100])
  with pytest.raises(ValueError, match='or not whole'):
    gguf_file.File(path)
  write(path, {'w': (x, KIND.F32)}, split_count=3)
  with pytest.raises(ValueError, match='one of 3 parts'):
    gguf_file.File(path)
  write(path, {'w': (x, KIND.F32)}, gguf.GGUFEndian.BIG)
  with pytest.raises(ValueError, match='other byte order'):
    gguf_file.File(path)
  file = gguf_file.File(write(path, {'w': (x, KIND.F32)}))
  with pytest.raises(ValueError, match='has no llama.block_count'):
    file.require('llama.block_count')
