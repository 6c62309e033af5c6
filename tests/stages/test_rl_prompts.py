"""The prompts that lists are written behind, token by token."""

import numpy as np

from gr2_jax.run import artifacts
from gr2_jax.stages import rl
from tests.integration import small


def test_answers_may_cite_all_that_their_prompts_show(tmp_path):
  store = small.store(tmp_path)
  candidates = np.array([[9, 8, 7, 6], [1, 2, 3, -1]], np.int32)
  lists = artifacts.CandidateLists(
    user=np.array([0, 3]),
    position=np.array([6, 2]),
    candidates=candidates,
    scores=np.zeros(candidates.shape, np.float32),
    target=np.array([1, 0]),
    grades=(np.arange(4) == np.array([[1], [0]])).astype(np.int32),
    features=np.zeros((2, 4, 3), np.float32),
    fold=np.full(2, -1, np.int32),
  )
  prompts = rl.make_prompts(store, lists, ())
  for row, (user, position) in enumerate(((0, 6), (3, 2))):
    shown = candidates[row][candidates[row] >= 0]
    want = {*store.history(user, position).tolist(), *shown.tolist()}
    assert set(prompts.citable[row].tolist()) - {-1} == want
  assert prompts.features.shape == (2, 4, 0)
