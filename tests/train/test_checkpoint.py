"""Checkpoints: what they hold, which stay, and what damage does to them."""

import gc
import json
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import version
from gr2_jax.train import checksum
from gr2_jax.train.checkpoint import Checkpointer
from gr2_jax.train.retention import Policy
from tests.train import toy

# Orbax leaves coroutines behind where it fails, which complain when they go.
untidy = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


@pytest.fixture
def tidy():
  """Makes them go before the next test."""
  yield
  gc.collect()


def _state(seed, size=1000):
  rng = np.random.default_rng(seed)
  return {
    'a': {'x': jnp.asarray(rng.normal(size=(size, 3)).astype(np.float32))},
    'n': jnp.int32(seed),
    'half': jnp.asarray(rng.normal(size=size), jnp.bfloat16),
    'mask': jnp.asarray(rng.random(size) < 0.5),
  }


def _steps(directory):
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def test_saving_an_old_step_is_an_error(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.restore({}) is None
    checkpointer.save(3, {'x': jnp.ones(2)}, None, {'a': 1})
    with pytest.raises(ValueError, match='holds step 3, so step 2'):
      checkpointer.save(2, {'x': jnp.ones(2)})
    got, iterator_state, meta = checkpointer.restore({'x': jnp.zeros(2)})
  assert iterator_state is None and meta == {'a': 1}
  np.testing.assert_array_equal(got['x'], 1)


def test_donated_buffers_are_saved_as_they_were(tmp_path):
  """They are overwritten while the checkpoint is being written."""
  change = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
  )
  current = {str(i): jnp.full((300, 1000), i, jnp.float32) for i in range(8)}
  change(jax.tree.map(jnp.copy, current))
  with Checkpointer(tmp_path, Policy(keep=9)) as checkpointer:
    for step in range(1, 5):
      current = change(current)
      checkpointer.save(step, current)
      for _ in range(3):
        current = change(current)
  for step in range(1, 5):
    with Checkpointer(tmp_path) as checkpointer:
      assert checkpointer.latest == 5 - step
      found, *_ = checkpointer.restore(current)
    for name, x in found.items():
      np.testing.assert_array_equal(x, int(name) + 1 + 4 * (4 - step))
    shutil.rmtree(tmp_path / str(5 - step))


def test_one_item_holds_all_that_a_run_is_made_of(tmp_path):
  policy = Policy(config={'seed': 3, 'lr': 0.1})
  with Checkpointer(tmp_path, policy) as checkpointer:
    checkpointer.save(1, _state(0), {'place': 5}, {'window': {}})
  assert {p.name for p in (tmp_path / '1').iterdir()} >= {'state', 'extra'}
  saved = json.loads((tmp_path / '1' / 'extra' / 'metadata').read_text())
  body = json.loads(saved['text'])
  assert body['iterator'] == {'json': {'place': 5}}
  assert body['config'] == {'seed': 3, 'lr': 0.1}
  assert body['code'] == version.describe() and 'commit' in body['code']


def test_the_latest_and_the_best_stay(tmp_path):
  policy = Policy(keep=2, best='-nll')
  values = [5.0, 2.0, 3.0, 2.0, None, 4.0]
  for step, value in enumerate(values, 1):
    # Opened again each time: which is best must be known from the disk.
    with Checkpointer(tmp_path, policy) as checkpointer:
      metrics = None if value is None else {'nll': value, 'other': -step}
      checkpointer.save(step, _state(step, 10), metrics=metrics)
  assert _steps(tmp_path) == [2, 5, 6]
  with Checkpointer(tmp_path, policy) as checkpointer:
    assert checkpointer.ranked() == [2, 6]
    shapes = jax.eval_shape(lambda: _state(0, 10))
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), shapes
    )
    state, *_ = checkpointer.restore(shapes, checkpointer.ranked())
    assert toy.same_bits(state, _state(2, 10))


def test_another_config_is_refused_unless_forced(tmp_path, caplog):
  with Checkpointer(tmp_path, Policy(config={'lr': 1, 'seed': 0})) as one:
    one.save(1, _state(0))
  other = {'lr': 2, 'seed': 0}
  with (
    Checkpointer(tmp_path, Policy(config=other)) as checkpointer,
    pytest.raises(ValueError, match=r'saved -> now\): lr: 1 -> 2\. .*--force'),
  ):
    checkpointer.restore(_state(0))
  assert _steps(tmp_path) == [1]
  with Checkpointer(tmp_path, Policy(config=other, force=True)) as checkpointer:
    assert checkpointer.restore(_state(0)) is not None
  assert 'lr: 1 -> 2' in caplog.text


def test_other_arrays_are_refused_and_nothing_is_called_damaged(tmp_path):
  with Checkpointer(tmp_path, Policy(force=True)) as checkpointer:
    checkpointer.save(1, _state(0))
    with pytest.raises(ValueError, match=r"'half'\]: \[\[1000\], 'bfloat16'"):
      checkpointer.restore(_state(0, 1001))
  assert _steps(tmp_path) == [1]


def test_other_code_is_told_of_and_its_checkpoint_used(
  tmp_path, caplog, monkeypatch
):
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, _state(0))
  own = version.describe()
  monkeypatch.setattr(version, 'describe', lambda: 'gr2_jax 9.9, commit abc')
  with Checkpointer(tmp_path) as checkpointer:
    assert checkpointer.restore(_state(0)) is not None
  assert own in caplog.text and 'gr2_jax 9.9, commit abc' in caplog.text


def test_a_changed_bit_changes_the_checksum_on_every_mesh(mesh1, mesh8):
  whole = checksum.of_tree(_state(0))
  shardings = [
    jax.sharding.NamedSharding(mesh8, jax.sharding.PartitionSpec(*spec))
    for spec in (('data', None), ('fsdp',), ())
  ]
  x = np.asarray(_state(0)['a']['x'])
  for sharding in shardings[:1] + shardings[2:]:
    placed = {'a': {'x': jax.device_put(x, sharding)}}
    (total,) = checksum.of_tree(placed).values()
    assert total == whole["['a']['x']"]
  for place in (0, 17, 2999):
    for bit in (0, 22, 31):
      words = x.copy().reshape(-1).view(np.uint32)
      words[place] ^= np.uint32(1 << bit)
      changed = words.view(np.float32).reshape(x.shape)
      (total,) = checksum.of_tree([jnp.asarray(changed)]).values()
      assert total != whole["['a']['x']"]


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """A directory with the checkpoints of two steps."""
  directory = tmp_path_factory.mktemp('two')
  with Checkpointer(directory) as checkpointer:
    for step in (1, 2):
      checkpointer.save(step, _state(step), {'place': step}, {'step': step})
  return directory


def _half(data):
  return data[: len(data) // 2]


def _flip(place):
  def damage(data):
    data = bytearray(data)
    data[int(place * len(data))] ^= 4
    return bytes(data)

  return damage


@untidy
@pytest.mark.parametrize(
  'damage', [_half, _flip(0.1), _flip(0.6)], ids=['cut', 'flip1', 'flip6']
)
def test_damage_is_found_or_does_no_harm(two, tmp_path, damage, caplog, tidy):
  """Every file of a checkpoint, one after the other."""
  files = [p for p in (two / '2').rglob('*') if p.is_file()]
  fell_back = set()
  for number, path in enumerate(files):
    directory = tmp_path / str(number)
    shutil.copytree(two, directory)
    path = directory / path.relative_to(two)
    path.write_bytes(damage(path.read_bytes()))
    caplog.clear()
    with Checkpointer(directory) as checkpointer:
      state, iterator_state, meta = checkpointer.restore(_state(0))
      step = int(state['n'])
      assert toy.same_bits(state, _state(step))
      assert iterator_state == {'place': step} and meta == {'step': step}
      if step == 1:
        fell_back.add(path.relative_to(directory / '2').parts[0])
        assert f'{directory / "2"} is damaged' in caplog.text
        assert 'continuing from step 1' in caplog.text
        assert (directory / '2.damaged').is_dir()
        # Its step is free again.
        checkpointer.save(2, _state(2))
        assert checkpointer.latest == 2
  assert {'state', 'extra'} <= fell_back


@untidy
def test_only_damaged_ones_are_an_error_and_stay(two, tmp_path, tidy):
  directory = tmp_path / 'all'
  shutil.copytree(two, directory)
  for step in '12':
    path = directory / step / 'extra' / 'metadata'
    path.write_bytes(_half(path.read_bytes()))
  with (
    Checkpointer(directory) as checkpointer,
    pytest.raises(ValueError, match=r'Every checkpoint in .*all is damaged'),
  ):
    checkpointer.restore(_state(0))
  assert _steps(directory) == [1, 2]


@untidy
def test_a_full_disk_is_told_of_and_the_checkpoint_before_stays(tmp_path, tidy):
  """A limit on the size of files stands for it."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, _state(1, 100_000))
    checkpointer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
      with pytest.raises(
        OSError, match=rf'Checkpoint 2 .* to {tmp_path}, where [\d,]+ MiB are'
      ) as error:
        checkpointer.save(2, _state(2, 100_000))
        checkpointer.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert '1 is intact' in str(error.value)
  with Checkpointer(tmp_path) as checkpointer:
    state, *_ = checkpointer.restore(_state(0, 100_000))
    assert int(state['n']) == 1
    # What was written of the second is gone, and there is room again.
    checkpointer.save(2, _state(2, 100_000))
  assert {p.name for p in tmp_path.iterdir()} == {'1', '2'}
  assert os.listdir(tmp_path / '2')


def test_checksums_of_many_sharded_arrays_do_not_lock_up(mesh8):
  # Forty programs with a sum over devices, all on their way at once, aborted.
  sharding = jax.sharding.NamedSharding(
    mesh8, jax.sharding.PartitionSpec(('data', 'fsdp'), 'tensor')
  )
  x = np.arange(64, dtype=np.uint32).reshape(8, 8)
  tree = [jax.device_put(x * i, sharding) for i in range(40)]
  expected = [int((x * i * (2 * x + 1)).sum() % 2**32) for i in range(40)]
  for _ in range(20):
    assert list(checksum.of_tree(tree).values()) == expected
