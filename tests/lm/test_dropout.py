import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, loss
from gr2_jax.lm.dropout import Dropout

TINY = lm_config.LMConfig(
  16, 2, 2, 1, 8, mlp_dim=24, vocab_size=40, dropout=0.5
)


def test_keeps_its_share_and_the_mean():
  drop = Dropout(0.25)
  x = np.ones((40, 50, 30), np.float32)
  y = np.asarray(drop.apply({}, x, rngs={'dropout': jax.random.key(0)}))
  assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
  # 60,000 draws: six standard errors of the share are 0.0106.
  assert abs((y == 0).mean() - 0.25) < 0.011
  np.testing.assert_array_equal(drop.apply({}, x), x)


def _batch(seed=None):
  tokens = np.random.default_rng(0).integers(0, 40, (4, 12))
  batch = {
    'tokens': tokens,
    'segments': np.ones((4, 12), np.int32),
    'positions': np.tile(np.arange(12), (4, 1)),
    'weights': np.ones((4, 12), np.float32),
  }
  if seed is not None:
    batch['seed'] = np.full(4, seed, np.uint32)
  return batch


@pytest.mark.parametrize('scan', [False, True])
def test_the_loss_drops_where_the_batch_has_a_seed(scan):
  config = dataclasses.replace(TINY, scan=scan)
  plain = dataclasses.replace(config, dropout=0.0)
  params = jax.jit(decoder.init_fn(config))(jax.random.key(0))
  params = jax.tree.map(
    lambda x: x.value, params, is_leaf=lambda x: hasattr(x, 'value')
  )

  def total(shape, seed=None):
    return float(loss.lm_loss(shape, params, _batch(seed))[0])

  assert total(config) == total(plain) == total(plain, 1)
  assert total(config, 1) == total(config, 1)
  assert len({total(config), total(config, 1), total(config, 2)}) == 3


@pytest.mark.parametrize('rate', [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate):
  with pytest.raises(ValueError, match='lm.dropout'):
    dataclasses.replace(TINY, dropout=rate)
