"""Batches of lists: buckets, masks, and refusals."""

import dataclasses

import numpy as np
import pytest

from tests.rl import tiny


def test_a_batch_uses_the_smallest_bucket():
  prompts = tiny.prompt_set()
  lengths = np.array([len(p) for p in prompts.prompts])
  short = np.flatnonzero(lengths <= 12)
  batch = prompts.batch(short[:2])
  assert batch.prompt.shape == (2, 12)
  np.testing.assert_array_equal(batch.prompt_valid.sum(1), lengths[short[:2]])
  batch = prompts.batch(np.append(short[:1], lengths.argmax()))
  assert batch.prompt.shape == (2, 16)


def test_semantic_ids_and_masks_of_short_lists():
  prompts = tiny.prompt_set()
  batch = prompts.batch(np.array([0, 1]))
  np.testing.assert_array_equal(
    batch.candidate_mask, [[True, True, False], [True] * 3]
  )
  np.testing.assert_array_equal(
    batch.candidate_sids[1], tiny.SIDS[prompts.candidates[1]]
  )


def test_what_may_be_cited_is_padded_and_masked():
  prompts = tiny.prompt_set()
  batch = prompts.batch(np.array([0, 1]))
  np.testing.assert_array_equal(
    batch.citable_mask, [[True] * 4 + [False], [True] * 5]
  )
  np.testing.assert_array_equal(
    batch.citable_sids[1], tiny.SIDS[prompts.citable[1]]
  )
  assert prompts.ids == tiny.M
  alone = dataclasses.replace(prompts, citable=None)
  np.testing.assert_array_equal(alone.citable, prompts.candidates)
  assert alone.ids == tiny.K


def test_grades_are_one_hot_at_the_target_unless_given():
  prompts = tiny.prompt_set()
  batch = prompts.batch(np.arange(6))
  assert batch.grades.shape == (6, tiny.K) and (batch.grades.sum(1) == 1).all()
  np.testing.assert_array_equal(batch.grades.argmax(1), batch.target)
  grades = np.arange(24 * tiny.K).reshape(24, tiny.K) % 3
  batch = dataclasses.replace(prompts, grades=grades).batch(np.array([5, 2]))
  np.testing.assert_array_equal(batch.grades, grades[[5, 2]])


def test_without_buckets_there_is_one():
  prompts = tiny.prompt_set(buckets=())
  assert prompts.buckets == (32,)


def test_refusals():
  prompts = tiny.prompt_set()
  with pytest.raises(ValueError, match='nothing to train on'):
    dataclasses.replace(prompts, prompts=[])
  with pytest.raises(ValueError, match='hits'):
    dataclasses.replace(prompts, target=prompts.target - 2)
  with pytest.raises(ValueError, match='prompt_buckets'):
    dataclasses.replace(prompts, buckets=(8,))
