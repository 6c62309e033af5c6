"""Vectors of one's own belong to items by id, in whatever order they stand."""

import io
import zipfile

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from gr2_jax.data import clean, dataset, raw
from gr2_jax.sid import vector_files, vectors

# In the order of the items file; sorted as text they are 1, 10, 2, 9.
IDS = ['9', '10', '2', '1']


def _dataset(ids=IDS, dropped=()):
  """Reads an items file of these ids; those in `dropped` are in no history."""
  rows = [raw.Interaction('u', i, 0) for i in ids if i not in dropped]
  items = [dataset.Item(i, i) for i in ids]
  return clean.clean('test', raw.Raw(items, rows), core=1)


def _vectors(ids):
  return np.array([[float(i), -float(i)] for i in ids], np.float32)


def _write(path, ids, found=None):
  """Writes vectors with their ids in the format that the name says."""
  found = _vectors(ids) if found is None else found
  if path.suffix == '.npz':
    np.savez(path, ids=np.array(ids), vectors=found)
  elif path.suffix == '.parquet':
    columns = {'item_id': list(ids), 'vector': list(found)}
    pyarrow.parquet.write_table(pa.table(columns), path)
  else:
    np.save(path, found)
    path.with_suffix('.ids').write_text(''.join(f'{i}\n' for i in ids))


def _ids(made):
  return [item.item_id for item in made.items]


@pytest.mark.parametrize('name', ['v.npz', 'v.parquet', 'v.npy'])
def test_rows_belong_to_items_by_id(tmp_path, name):
  made = _dataset(dropped=['10'])
  _write(tmp_path / name, ['1', '2', '77', '9', '10'])
  found = vector_files.read(tmp_path / name, made)
  assert found.shape == (3, 2) and len(found) == 3
  np.testing.assert_array_equal(found[:], _vectors(_ids(made)))
  np.testing.assert_array_equal(found[np.array([2])], _vectors(['9']))
  scaled = vectors.scaled(found)
  expected = vectors.scaled(_vectors(_ids(made)))
  np.testing.assert_allclose(scaled[:], expected[:], rtol=1e-6)


def test_whole_numbers_are_ids(tmp_path):
  np.savez(
    tmp_path / 'v.npz', ids=[1, 2, 9, 10], vectors=_vectors([1, 2, 9, 10])
  )
  made = _dataset()
  found = vector_files.read(tmp_path / 'v.npz', made)
  np.testing.assert_array_equal(found[:], _vectors(_ids(made)))


@hypothesis.settings(
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  ids=st.lists(
    st.integers(0, 200).map(str), min_size=2, max_size=12, unique=True
  ),
  data=st.data(),
)
def test_a_bare_npy_is_in_the_order_of_the_items_file(tmp_path, ids, data):
  gone = data.draw(st.lists(st.sampled_from(ids), max_size=len(ids) - 1))
  hypothesis.assume(set(gone) != set(ids))
  made = _dataset(ids, gone)
  np.save(tmp_path / 'bare.npy', _vectors(ids))
  found = vector_files.read(tmp_path / 'bare.npy', made)
  np.testing.assert_array_equal(found[:], _vectors(_ids(made)))


def test_a_bare_npy_in_order_stays_on_disk(tmp_path):
  made = _dataset(sorted(IDS))
  np.save(tmp_path / 'bare.npy', _vectors(sorted(IDS)))
  found = vector_files.read(tmp_path / 'bare.npy', made)
  assert isinstance(found, np.memmap)


def test_without_ids_the_number_and_the_order_must_be_known(tmp_path):
  path, made = tmp_path / 'bare.npy', _dataset(dropped=['10'])
  np.save(path, _vectors(_ids(made)))
  with pytest.raises(ValueError, match='3 rows .*the 4 items'):
    vector_files.read(path, made)
  object.__setattr__(made, 'rows', np.zeros(0, np.int64))
  with pytest.raises(ValueError, match='does not know .*bare.ids, one a line'):
    vector_files.read(path, made)


@pytest.mark.parametrize('name', ['v.npz', 'v.parquet', 'v.npy'])
def test_wrong_ids_are_named(tmp_path, name):
  made, path = _dataset(), tmp_path / name
  _write(path, ['1', '2', '9'])
  with pytest.raises(ValueError, match=r"no vector of 1 of the 4 .*\['10'\]"):
    vector_files.read(path, made)
  _write(path, ['1', '2', '9', '10', '2'])
  with pytest.raises(ValueError, match="the id '2' stands there twice"):
    vector_files.read(path, made)


@pytest.mark.parametrize('name', ['v.npz', 'v.npy'])
def test_ids_and_vectors_must_be_as_many(tmp_path, name):
  _write(tmp_path / name, IDS, _vectors(IDS[:3]))
  with pytest.raises(ValueError, match='4 ids for 3 vectors'):
    vector_files.read(tmp_path / name, _dataset())


def test_other_files_are_refused(tmp_path):
  made = _dataset()
  (tmp_path / 'v.txt').write_text('1')
  with pytest.raises(ValueError, match=r"v.txt: .*\('.npz', "):
    vector_files.read(tmp_path / 'v.txt', made)
  for name, told in (('v.npz', 'no archive'), ('v.parquet', 'no Parquet file')):
    (tmp_path / name).write_text('1')
    with pytest.raises(ValueError, match=told):
      vector_files.read(tmp_path / name, made)
  np.savez(tmp_path / 'v.npz', vectors=_vectors(IDS))
  with pytest.raises(ValueError, match='no archive of ids'):
    vector_files.read(tmp_path / 'v.npz', made)
  objects = np.array(IDS, object)
  np.savez(tmp_path / 'v.npz', ids=objects, vectors=_vectors(IDS))
  with pytest.raises(ValueError, match='no archive of ids'):
    vector_files.read(tmp_path / 'v.npz', made)
  ragged = {'item_id': IDS, 'vector': [[1.0], [1.0, 2.0], [1.0], [1.0, 2.0]]}
  pyarrow.parquet.write_table(pa.table(ragged), tmp_path / 'v.parquet')
  with pytest.raises(ValueError, match='of different lengths, such as'):
    vector_files.read(tmp_path / 'v.parquet', made)


def _header(shape):
  """Returns the header of a `.npy` of this shape, and no numbers."""
  stream = io.BytesIO()
  about = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(stream, about)
  return stream.getvalue()


def _archive(path, vectors, compression=zipfile.ZIP_DEFLATED):
  """Writes an `.npz` of any bytes as vectors."""
  stream = io.BytesIO()
  np.save(stream, np.array(IDS))
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('ids.npy', stream.getvalue())
    archive.writestr('vectors.npy', vectors)


def test_an_archive_that_asks_for_terabytes_is_refused(tmp_path):
  _archive(tmp_path / 'v.npz', _header((10**12, 10)))
  with pytest.raises(ValueError, match=r'v.npz is no archive .*allocate'):
    vector_files.read(tmp_path / 'v.npz', _dataset())


@pytest.mark.parametrize(
  'compression', [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize('seed', range(6))
def test_damaged_archives_are_refused_or_read(tmp_path, compression, seed):
  path, rng = tmp_path / 'v.npz', np.random.default_rng(seed)
  stream = io.BytesIO()
  np.save(stream, rng.normal(size=(4, 100)))
  _archive(path, stream.getvalue(), compression)
  whole = path.read_bytes()
  refused = 0
  for place in rng.integers(len(whole), size=60):
    damaged = bytearray(whole)
    damaged[place] ^= 1 + rng.integers(255)
    path.write_bytes(damaged)
    try:
      vector_files.read(path, _dataset())
    except ValueError as error:
      assert 'v.npz' in str(error)
      refused += 1
  assert refused


def test_a_header_that_is_no_python_is_refused(tmp_path):
  text = b"{'descr': '<f4', 'shape': (((".ljust(117) + b'\n'
  (tmp_path / 'v.npy').write_bytes(b'\x93NUMPY\x01\x00\x76\x00' + text)
  with pytest.raises(ValueError, match='v.npy is no array of numbers'):
    vector_files.read(tmp_path / 'v.npy', _dataset())


@pytest.mark.parametrize('name', ['v.npz', 'v.parquet', 'v.npy'])
@pytest.mark.parametrize('number', [np.nan, -np.inf, 1e300])
def test_numbers_that_float32_cannot_hold_name_the_item(tmp_path, name, number):
  found = _vectors(IDS).astype(np.float64)
  found[1, 0] = number
  _write(tmp_path / name, IDS, found)
  with pytest.raises(ValueError, match=f"{name}: the vector of the item '10'"):
    vector_files.read(tmp_path / name, _dataset())


def test_vectors_have_a_width(tmp_path):
  np.save(tmp_path / 'v.npy', np.zeros((4, 0), np.float32))
  with pytest.raises(ValueError, match=r'vectors of shape \(4, 0\)'):
    vector_files.read(tmp_path / 'v.npy', _dataset())


@pytest.mark.parametrize('name', ['v.npz', 'v.parquet', 'v.npy'])
def test_missing_files_and_folders_are_named(tmp_path, name):
  reads = lambda p: vector_files.read(p, _dataset()), vector_files.fingerprint
  for read in reads:
    with pytest.raises(
      FileNotFoundError, match=f'{name}: no such file of item'
    ):
      read(tmp_path / name)
  (tmp_path / name).mkdir()
  for read in reads:
    with pytest.raises(ValueError, match=f'{name}: a folder'):
      read(tmp_path / name)


def test_the_fingerprint_holds_the_ids(tmp_path):
  path = tmp_path / 'v.npy'
  np.save(path, _vectors(IDS))
  bare = vector_files.fingerprint(path)
  _write(path, IDS)
  first = vector_files.fingerprint(path)
  _write(path, IDS[::-1], _vectors(IDS))
  assert len({bare, first, vector_files.fingerprint(path)}) == 3
