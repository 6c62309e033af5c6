"""Scaling of embeddings, and reading them from disk."""

import pickle

import numpy as np
import pytest

from gr2_jax.sid import vectors


def test_scaling_by_hand():
  scaled = vectors.scaled(np.array([[1.0, 5.0], [3.0, 5.0]]))
  # Centred (-1, 0), (1, 0): the mean square over all components is a half.
  np.testing.assert_allclose(scaled[:], [[-(2**0.5), 0], [2**0.5, 0]], 1e-6)
  np.testing.assert_allclose(scaled[np.array([1])], [[2**0.5, 0]], 1e-6)
  assert scaled[:].dtype == np.float32
  assert scaled.shape == (2, 2) and len(scaled) == 2


def test_bad_embeddings_are_named():
  with pytest.raises(ValueError, match='item 1 is not finite'):
    vectors.scaling(np.array([[1.0], [np.nan]]))
  with pytest.raises(ValueError, match='the same vector'):
    vectors.scaling(np.ones((3, 2)))
  with pytest.raises(ValueError, match='item 0 is not finite, or beyond 1e'):
    vectors.scaling(np.array([[1e300], [1.0]]))
  with pytest.raises(ValueError, match='differ by 5e-101 alone, which float32'):
    vectors.scaling(np.array([[1e-100], [0.0]]))


def test_blocks_do_not_change_the_scaling(monkeypatch):
  raw = np.random.default_rng(0).normal(2, 3, (50, 4)).astype(np.float32)
  monkeypatch.setattr(vectors.blocks, '__defaults__', (7,))
  mean, scale = vectors.scaling(raw)
  # Sums in another order, in float64.
  np.testing.assert_allclose(mean, raw.astype(float).mean(0), rtol=1e-12)
  centred = raw.astype(float) - mean
  assert scale == pytest.approx(np.sqrt((centred**2).mean()), rel=1e-12)


def test_files_are_mapped_and_checked(tmp_path):
  path = tmp_path / 'vectors.npy'
  np.save(path, np.ones((3, 2), np.float32))
  assert isinstance(vectors.read(path), np.memmap)
  np.save(path, np.ones((3, 2), int))
  with pytest.raises(ValueError, match='holds int64; save .* as float32'):
    vectors.read(path)
  np.save(path, np.ones(3, np.float32))
  with pytest.raises(ValueError, match=r'of shape \(3,\); give one row'):
    vectors.read(path)


class _Hostile:
  """Runs code where it is unpickled."""

  def __reduce__(self):
    return (open, ('executed', 'w'))


@pytest.mark.parametrize('kind', ['array', 'pickle', 'archive', 'empty'])
def test_python_objects_are_not_read(tmp_path, monkeypatch, kind):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'vectors.npy'
  hostile = np.array([[_Hostile()]], object)
  with path.open('wb') as stream:
    if kind == 'array':
      np.save(stream, hostile, allow_pickle=True)
    elif kind == 'pickle':
      pickle.dump(_Hostile(), stream)
    elif kind == 'archive':
      np.savez(stream, x=hostile)
  with pytest.raises(ValueError, match='vectors.npy is no array of numbers'):
    vectors.read(path)
  assert not (tmp_path / 'executed').exists()
