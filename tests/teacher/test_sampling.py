"""Both sampling modes: what is asked, kept, dropped and counted."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.teacher import base, sampling

ALL_FIT = lambda text: True


@dataclasses.dataclass
class Scripted:
  """Answers what `script(request, attempt)` says and keeps what was asked."""

  script: object
  name: str = 'scripted'

  def __post_init__(self):
    self.asked = []

  def answer(self, requests, attempt, rng):
    self.asked.append(list(requests))
    return [self.script(request, attempt) for request in requests]


def request(*candidates):
  return base.Request(np.array([0]), np.array(candidates))


def test_rejection_asks_again_only_what_was_wrong():
  # The list that begins with 1 is right at once, that with 4 at the third
  # attempt, that with 7 never.
  def script(asked, attempt):
    items = asked.candidates.tolist()
    if items[0] == 4 and attempt == 2:
      items = [5, 4, 6]
    return base.Answer(items, f'because {attempt}')

  teacher = Scripted(script)
  requests = [request(1, 2, 3), request(4, 5, 6), request(7, 8, 9)]
  traces, tally = sampling.collect(
    teacher, requests, [1, 5, 9], sampling.REJECTION, 4, ALL_FIT, [0]
  )
  assert [(t.row, t.ranking, t.explanation, t.attempt) for t in traces] == [
    (0, [1, 2, 3], 'because 0', 0),
    (1, [5, 4, 6], 'because 2', 2),
  ]
  assert [len(asked) for asked in teacher.asked] == [3, 2, 2, 1]
  assert (tally.requested, tally.accepted) == (3, 2)
  assert tally.by_attempt == [1, 0, 1, 0]
  assert tally.rejected == {
    **dict.fromkeys(sampling.REASONS, 0),
    sampling.WRONG_TOP: 6,
  }


@hypothesis.settings(deadline=None)
@hypothesis.given(
  targets=st.tuples(st.integers(1, 3), st.integers(4, 6)),
  other=st.tuples(st.integers(1, 3), st.integers(4, 6)),
)
def test_rejection_never_shows_the_target(world, targets, other):
  requests = [request(1, 2, 3), request(4, 5, 6)]
  first_asked = []
  for each in (targets, other):
    teacher = Scripted(world.teacher().answer)
    teacher.answer = _spy(teacher, world.teacher())
    sampling.collect(
      teacher, requests, each, sampling.REJECTION, 3, ALL_FIT, [0]
    )
    assert all(r.hint is None for asked in teacher.asked for r in asked)
    first_asked.append(teacher.answers[0])
  # The first answers are the same whatever the targets are.
  for left, right in zip(*first_asked, strict=True):
    assert left.ranking == right.ranking
    assert left.explanation == right.explanation


def _spy(record, teacher):
  record.answers = []

  def answer(requests, attempt, rng):
    record.asked.append(list(requests))
    record.answers.append(teacher.answer(requests, attempt, rng))
    return record.answers[-1]

  return answer


def test_rejection_keeps_only_what_ranks_the_target_first(world):
  rng = np.random.default_rng(0)
  requests, targets = [], []
  for _ in range(100):
    candidates = rng.permutation(24)[:5]
    requests.append(base.Request(rng.permutation(24)[:4], candidates))
    targets.append(int(rng.choice(candidates)))
  traces, tally = sampling.collect(
    world.teacher(), requests, targets, sampling.REJECTION, 3, ALL_FIT, [7]
  )
  assert 0 < tally.accepted == len(traces) < 100
  for trace in traces:
    assert trace.ranking[0] == targets[trace.row]
    expected = requests[trace.row].candidates
    assert sorted(trace.ranking) == sorted(expected.tolist())
  dropped = 3 * (100 - tally.accepted) + tally.by_attempt[1]
  assert tally.rejected[sampling.WRONG_TOP] == dropped + 2 * tally.by_attempt[2]


def test_targeted_tells_and_keeps_all(world):
  requests = [request(1, 2, 3), request(4, 5, 6)]
  teacher = Scripted(None)
  teacher.answer = _spy(teacher, world.teacher())
  traces, tally = sampling.collect(
    teacher, requests, [3, 4], sampling.TARGETED, 2, ALL_FIT, [0]
  )
  assert [r.hint for r in teacher.asked[0]] == [3, 4]
  assert [t.ranking[0] for t in traces] == [3, 4]
  assert tally.accepted == 2 and len(teacher.asked) == 1
  assert all(r.hint is None for r in requests), 'requests stay as they were'


def test_practice_asks_once_and_keeps_all_that_is_well_formed():
  def script(asked, attempt):
    items = asked.candidates.tolist()
    text = '' if items[0] == 4 else f'because {attempt}'
    return base.Answer(items[::-1][:2], text)

  teacher = Scripted(script)
  requests = [request(1, 2, 3), request(4, 5, 6)]
  traces, tally = sampling.practise(teacher, requests, ALL_FIT, [0])
  assert [(t.row, t.ranking, t.explanation) for t in traces] == [
    (0, [3, 2, 1], 'because 0')
  ]
  assert len(teacher.asked) == 1
  assert all(r.hint is None for r in teacher.asked[0])
  assert (tally.requested, tally.accepted, tally.by_attempt) == (2, 1, [1])
  assert tally.rejected[sampling.EMPTY] == 1


def test_reasons_by_hand():
  judge = lambda ranking, text='why', mode=sampling.REJECTION: sampling.judge(
    base.Answer(ranking, text), [1, 2, 3], 2, mode, lambda t: len(t) < 9
  )
  assert judge([2, 1, 3]) is None
  assert judge([2]) is None, 'missing items are added, not turned down'
  assert judge([2, 9]) == sampling.UNKNOWN_ITEM
  assert judge([2, 2]) == sampling.REPEATED_ITEM
  assert judge([2, 1], ' \n') == sampling.EMPTY
  assert judge([2, 1], 'much too long') == sampling.TOO_LONG
  assert judge([1, 2]) == judge([]) == sampling.WRONG_TOP
  assert judge([1, 2], mode=sampling.TARGETED) is None
  assert judge([1, 2], mode=sampling.PRACTICE) is None


def test_the_list_that_is_trained_on():
  assert sampling.complete([3, 1], [1, 2, 3, 4], 4) == [4, 3, 1, 2]
  assert sampling.complete([4, 3], [1, 2, 3, 4], 4) == [4, 3, 1, 2]
  assert sampling.complete([], [1, 2], 2) == [2, 1]
  assert sampling.complete([3], [1, 2, 3]) == [3, 1, 2]


def test_tallies_add_up():
  total = sampling.empty_tally(2)
  one = dataclasses.replace(sampling.empty_tally(2), requested=3, accepted=1)
  one.by_attempt, one.rejected[sampling.EMPTY] = [0, 1], 2
  total = total.plus(one).plus(one)
  assert one.requested == 3, 'the parts stay as they were'
  assert (total.requested, total.accepted) == (6, 2)
  assert total.by_attempt == [0, 2] and total.rejected[sampling.EMPTY] == 4


def test_wrong_arguments_are_named():
  teacher = Scripted(None)
  run = lambda requests, targets, mode='rejection', attempts=1: (
    sampling.collect(teacher, requests, targets, mode, attempts, ALL_FIT, [0])
  )
  with pytest.raises(ValueError, match="'both'"):
    run([], [], mode='both')
  with pytest.raises(ValueError, match='attempts is 0'):
    run([], [], attempts=0)
  with pytest.raises(ValueError, match='target 9 of request 0'):
    run([request(1, 2)], [9])
  told = dataclasses.replace(request(1, 2), hint=1)
  with pytest.raises(ValueError, match='holds a hint'):
    run([told], [1])
  assert teacher.asked == []
