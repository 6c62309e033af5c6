"""The list's part of the vocabulary against the whole."""

import dataclasses

import jax
import numpy as np
import pytest

from gr2_jax.decode import parts
from gr2_jax.lm import tables


@pytest.fixture
def served(fmt, tiny):
  return parts.served(tiny.config, fmt, True)


def test_the_list_holds_sids_and_what_is_around_them(fmt):
  ids = parts.list_ids(fmt).tolist()
  assert len(ids) == len(set(ids)) == 3 * 8 + 7
  assert set(ids) == {*range(20, 44), 13, 14, 15, 17, 18, 19, 2}


def test_ids_come_back(fmt, served):
  ids = parts.list_ids(fmt)
  for part in served:
    np.testing.assert_array_equal(part.outside(part.inside(ids)), ids)
    np.testing.assert_array_equal(part.inside(np.array([-1, -1])), [-1, -1])
  # Padding is no id of the list, and still a number of it.
  assert 0 <= int(served[1].inside(np.array(fmt.pad))) < len(ids)


@pytest.mark.parametrize('tied', [True, False])
def test_logits_are_those_of_the_whole(fmt, tiny, served, tied):
  config = dataclasses.replace(tiny.config, tie_embeddings=tied)
  keys = jax.random.split(jax.random.key(0), 3)
  table = jax.random.normal(keys[0], (64, 16))
  other = jax.random.normal(keys[1], (64, 16))
  params = {'embedding': table, 'output': other}
  hidden = jax.random.normal(keys[2], (2, 3, 16))
  output = tables.output(config, params)
  whole = tables.unembed(config, output, hidden)
  got = served[1].logits(served[1].rows(output), hidden)
  # The same sums of 16 terms of order one, at most in another order.
  want = np.asarray(whole)[..., parts.list_ids(fmt)]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
  np.testing.assert_array_equal(served[0].logits(output, hidden), whole)
  assert served[1].banned is None
  assert served[0].banned[[fmt.open, fmt.sep, *fmt.unsafe]].all()


def test_without_the_constraint_one_part_serves_all(fmt, tiny):
  (whole,) = parts.served(tiny.config, fmt, False)
  assert not whole.listing and whole.banned is None
