"""Sampling without a format: keys by prompt, several ends, no candidates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import next_token, sampler
from gr2_jax.decode.items import Items


@pytest.fixture(scope='module')
def write(tiny, fmt, prompts):
  """Gives `write(seeds, rows, ends) -> tokens and mask [len(rows), 2, 12]`."""

  def run(seeds, rows=range(4), ends=()):
    rows = np.array(rows)
    shape = len(rows), 0
    nothing = jnp.zeros((*shape, 3), jnp.int32), jnp.zeros(shape, bool)
    samples = sampler.sample(
      tiny.config,
      tiny.params,
      *(x[rows] for x in prompts),
      jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)),
      num_samples=2,
      max_new_tokens=12,
      temperature=jnp.float32(1.0),
      fmt=dataclasses.replace(fmt, other_ends=tuple(ends)),
      items=Items(*nothing, *nothing),
      constrain=False,
      explanation_tokens=0,
    )
    return np.asarray(samples.tokens), np.asarray(samples.mask)

  return run


def test_a_prompt_with_a_key_of_its_own_knows_no_other(write):
  tokens, mask = write([5, 6, 7, 8])
  turned, _ = write([8, 7, 6, 5], [3, 2, 1, 0])
  np.testing.assert_array_equal(turned[::-1], tokens)
  others, _ = write([5, 1, 7, 1])
  np.testing.assert_array_equal(others[[0, 2]], tokens[[0, 2]])
  assert (others[[1, 3]] != tokens[[1, 3]]).any(axis=(1, 2)).all()
  # One key: the members of a group still differ.
  assert (tokens[:, 0] != tokens[:, 1]).any()
  assert mask.any()


def test_the_numbers_of_a_step_are_new_and_in_range():
  keys = jax.vmap(jax.random.key)(jnp.arange(3))
  one, two = (
    np.asarray(next_token.uniform(keys, jnp.int32(step), (3, 4)))
    for step in (0, 1)
  )
  assert one.shape == (3, 4) and one.min() >= 0 and one.max() < 1
  assert len(np.unique([one, two])) == 24


def test_each_of_several_ends_ends_an_answer(write, fmt):
  free, mask = write([5, 6, 7, 8])
  assert mask[0, 0, :4].all()
  other = int(free[0, 0, 3])
  tokens, mask = write([5, 6, 7, 8], ends=(other,))
  ends = (tokens == other) | (tokens == fmt.eos)
  for row, end, written in zip(
    free.reshape(8, 12),
    (ends & mask).reshape(8, 12),
    mask.reshape(8, 12),
    strict=True,
  ):
    found = np.flatnonzero((row == other) | (row == fmt.eos))
    length = found[0] + 1 if len(found) else 12
    assert written.sum() == length == written.nonzero()[0].max() + 1
    assert end.sum() == bool(len(found))
