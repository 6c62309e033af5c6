"""All sampling modes: what is asked, kept, dropped and counted."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.teacher import acceptance, asker, base, journal, sampling
from tests.teacher.scripted import Killed, Scripted, accept, request, sound

REJECTION, TARGETED = acceptance.REJECTION, acceptance.TARGETED


def tasks_of(requests, targets):
  pairs = zip(requests, targets, strict=True)
  return [
    asker.Task(row, 5, asked, target)
    for row, (asked, target) in enumerate(pairs)
  ]


def collect(path, teacher, tasks, mode, attempts=3, seed=0, **accepted):
  kept = journal.Journal(path / mode, teacher.identity | {'seed': seed})
  return sampling.collect(
    teacher,
    tasks,
    mode=mode,
    attempts=attempts,
    acceptance=accept(**accepted),
    seed=seed,
    journal=kept,
  )


def facts(traces):
  return [(t.row, t.ranking, t.explanation, t.attempt) for t in traces]


def test_rejection_asks_again_only_what_was_wrong(tmp_path):
  # The list that begins with 1 is right at once, that with 4 at the third
  # attempt, that with 7 never.
  def script(asked, attempt, seed):
    items = asked.candidates.tolist()
    if items[0] == 4 and attempt == 2:
      items = [5, 4, 6]
    return sound(items, f'attempt {attempt}')

  teacher = Scripted(script)
  requests = [request([1, 2, 3]), request([4, 5, 6]), request([7, 8, 9])]
  traces, tally = collect(
    tmp_path, teacher, tasks_of(requests, [1, 5, 9]), REJECTION, 4
  )
  assert [fact[:2] + fact[3:] for fact in facts(traces)] == [
    (0, [1, 2, 3], 0),
    (1, [5, 4, 6], 2),
  ]
  assert [attempt for attempt, *_ in teacher.asked] == [0, 0, 0, 1, 1, 2, 2, 3]
  assert {candidates[0] for a, candidates, _ in teacher.asked if a == 3} == {7}
  assert (tally.requested, tally.accepted) == (3, 2)
  assert tally.asked == [3, 2, 2, 1] and tally.by_attempt == [1, 0, 1, 0]
  assert tally.rejected == dict.fromkeys(acceptance.REASONS, 0) | {
    'wrong_top': 6
  }


@hypothesis.settings(
  deadline=None,
  max_examples=20,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  targets=st.tuples(st.integers(1, 3), st.integers(4, 6)),
  other=st.tuples(st.integers(1, 3), st.integers(4, 6)),
)
def test_rejection_never_shows_the_target(
  world, targets, other, tmp_path_factory
):
  requests = [request([1, 2, 3]), request([4, 5, 6])]
  first = []
  for each in (targets, other):
    answers = []
    rules = world.teacher()

    def script(asked, attempt, seed, rules=rules, answers=answers):
      ((_, answer),) = next(rules.answer([asked], attempt, [seed]))
      answers.append((answer.ranking, answer.explanation))
      return answer

    teacher = Scripted(script)
    path = tmp_path_factory.mktemp('run')
    collect(path, teacher, tasks_of(requests, each), REJECTION)
    assert all(hint is None for *_, hint in teacher.asked)
    first.append(answers[:2])
  # The first answers are the same whatever the targets are.
  assert first[0] == first[1]


def test_rejection_keeps_only_what_ranks_the_target_first(world, tmp_path):
  rng = np.random.default_rng(0)
  requests, targets = [], []
  for _ in range(100):
    candidates = rng.permutation(24)[:5]
    requests.append(base.Request(rng.permutation(24)[:4], candidates))
    targets.append(int(rng.choice(candidates)))
  traces, tally = collect(
    tmp_path,
    world.teacher(),
    tasks_of(requests, targets),
    REJECTION,
    names_top=False,
  )
  assert 0 < tally.accepted == len(traces) < 100
  for trace in traces:
    assert trace.ranking[0] == targets[trace.row]
    expected = requests[trace.row].candidates
    assert sorted(trace.ranking) == sorted(expected.tolist())
  assert sum(tally.asked) == tally.accepted + tally.rejected['wrong_top']
  assert sum(tally.by_attempt[1:]) > 0, 'noise finds more'


def test_targeted_tells_and_keeps_all(world, tmp_path):
  requests = [request([1, 2, 3]), request([4, 5, 6])]
  rules = world.teacher()

  def script(asked, attempt, seed):
    return next(rules.answer([asked], attempt, [seed]))[0][1]

  teacher = Scripted(script)
  traces, tally = collect(
    tmp_path, teacher, tasks_of(requests, [3, 4]), TARGETED, names_top=False
  )
  assert teacher.asked == [(0, (1, 2, 3), 3), (0, (4, 5, 6), 4)]
  assert [t.ranking[0] for t in traces] == [3, 4]
  assert tally.accepted == 2 and tally.asked == [2, 0, 0]
  assert all(r.hint is None for r in requests), 'requests stay as they were'


def test_near_duplicates_are_dropped_in_the_order_of_the_lists(tmp_path):
  # All say the same; the third list is accepted first, the first one last.
  def script(asked, attempt, seed):
    items = asked.candidates.tolist()
    return sound(items if attempt + items[0] // 3 >= 2 else items[::-1])

  requests = [request([i, i + 1, i + 2]) for i in (1, 4, 7)]
  tasks = tasks_of(requests, [1, 4, 7])
  traces, tally = collect(
    tmp_path, Scripted(script), tasks, REJECTION, near_duplicate=1.0
  )
  assert [(t.row, t.attempt) for t in traces] == [(0, 2)]
  assert tally.by_attempt == [0, 0, 1] and tally.rejected['near_duplicate'] == 2
  assert sum(tally.asked) == 6 == tally.accepted + sum(tally.rejected.values())


def test_tokens_of_all_answers_are_counted(tmp_path):
  def script(asked, attempt, seed):
    kept = sound(asked.candidates.tolist())
    problem = 'cut_off' if attempt == 0 else None
    return dataclasses.replace(
      kept, problem=problem, prompt_tokens=100, completion_tokens=attempt + 1
    )

  tasks = tasks_of([request([1, 2])], [1])
  _, tally = collect(tmp_path, Scripted(script), tasks, REJECTION)
  assert (tally.prompt_tokens, tally.completion_tokens) == (200, 3)
  assert tally.asked == [1, 1, 0] and tally.rejected['cut_off'] == 1


def _random_script(asked, attempt, seed):
  """All kinds of answers, drawn from what a teacher may draw from."""
  rng = np.random.default_rng([seed, attempt])
  ranking = rng.permutation(asked.candidates).tolist()
  answer = sound(ranking, f'word{rng.integers(2)} for all')
  kind = rng.integers(8)
  if kind == 0:
    return base.Answer(
      [], '', 'not_json', text='text', prompt_tokens=10, completion_tokens=1
    )
  if kind == 1:
    return dataclasses.replace(answer, explanation='no citation')
  if kind == 2:
    return dataclasses.replace(answer, ranking=ranking[1:])
  return dataclasses.replace(answer, prompt_tokens=10, completion_tokens=5)


@pytest.mark.parametrize('seed', range(4))
def test_killed_at_random_moments_nothing_is_asked_twice(tmp_path, seed):
  rng = np.random.default_rng(seed)
  requests = [request(rng.permutation(24)[:4]) for _ in range(40)]
  tasks = tasks_of(requests, [int(r.candidates[1]) for r in requests])
  run = lambda path, teacher: collect(
    path, teacher, tasks, REJECTION, 4, near_duplicate=1.0
  )
  whole = Scripted(_random_script)
  traces, tally = run(tmp_path / 'whole', whole)
  assert sum(tally.asked) == tally.accepted + sum(tally.rejected.values())
  assert tally.rejected['near_duplicate'] and tally.rejected['wrong_top']

  answered, kills = [], 0
  while True:
    teacher = Scripted(_random_script, rng, int(rng.integers(5, 50)))
    try:
      again, counts = run(tmp_path / 'killed', teacher)
      break
    except Killed:
      kills += 1
    finally:
      answered += teacher.answered
  assert kills > 1
  assert sorted(answered) == sorted(whole.answered)
  assert facts(again) == facts(traces) and counts == tally
  lines = [
    sorted(next((tmp_path / name).glob('*/*')).read_text().splitlines())
    for name in ('whole', 'killed')
  ]
  assert lines[0] == lines[1]

  # More attempts add to what is there.
  more = Scripted(_random_script)
  collect(tmp_path / 'whole', more, tasks, REJECTION, 5)
  assert more.asked and {attempt for attempt, *_ in more.asked} == {4}
  # Another prompt is asked everything.
  other = Scripted(_random_script)
  other.identity = {'script': 'second'}
  collect(tmp_path / 'whole', other, tasks, REJECTION, 4, near_duplicate=1.0)
  assert other.asked == whole.asked


def test_seeds_follow_from_the_list_alone(tmp_path):
  def seeds_of(requests, users):
    found = {}

    def script(asked, attempt, seed):
      found[asked.candidates[0], attempt] = seed
      return base.Answer([], '')

    tasks = [
      asker.Task(user, 5, each, int(each.candidates[0]))
      for user, each in zip(users, requests, strict=True)
    ]
    path = tmp_path / str(len(requests))
    collect(path, Scripted(script), tasks, REJECTION, 2)
    return found

  requests = [request([i, i + 1]) for i in (1, 4, 7)]
  whole = seeds_of(requests, [0, 1, 2])
  assert len(set(whole.values())) == 6
  assert all(0 <= seed < 2**31 for seed in whole.values())
  part = seeds_of(requests[:0:-1], [2, 1])
  assert part == {key: whole[key] for key in part} and len(part) == 4
  assert asker.request_seed(1, 2, 5, 0) != asker.request_seed(0, 2, 5, 0)


def test_a_teacher_that_miscounts_is_named(tmp_path):
  tasks = tasks_of([request([1, 2]), request([3, 4])], [1, 3])

  def answer(groups):
    teacher = Scripted(None)
    teacher.answer = lambda requests, attempt, seeds: iter(groups)
    collect(tmp_path, teacher, tasks, REJECTION)

  good = sound([1, 2])
  with pytest.raises(RuntimeError, match="'scripted' left 1 of 2"):
    answer([[(0, good)]])
  with pytest.raises(RuntimeError, match='request 0 of 1 twice'):
    answer([[(0, good)], [(0, good)]])
  with pytest.raises(RuntimeError, match="'tired' as the problem"):
    answer([[(0, dataclasses.replace(good, problem='tired'))]])
  with pytest.raises(RuntimeError, match='request 7'):
    answer([[(7, good)]])


def test_wrong_arguments_are_named(tmp_path):
  teacher = Scripted(None)
  run = lambda requests, targets, mode='rejection', attempts=1: collect(
    tmp_path, teacher, tasks_of(requests, targets), mode, attempts
  )
  with pytest.raises(ValueError, match="'both'"):
    run([], [], mode='both')
  with pytest.raises(ValueError, match='attempts is 0'):
    run([], [], attempts=0)
  with pytest.raises(ValueError, match='target 9 of request 0'):
    run([request([1, 2])], [9])
  with pytest.raises(ValueError, match='holds a hint'):
    run([request([1, 2], hint=1)], [1])
  assert teacher.asked == []


def test_a_report_by_hand():
  rejected = dict.fromkeys(acceptance.REASONS, 0)
  rejected |= {'wrong_top': 3, 'near_duplicate': 1}
  tally = sampling.Tally(
    4, [4, 2, 1], [2, 1, 0], rejected, prompt_tokens=700, completion_tokens=90
  )
  traces = [sampling.Trace(row, [], '', 0) for row in (0, 1, 3)]
  found = sampling.summarise(tally, traces, [2, 0, 0, 0], [5, 9, 10])
  assert found == {
    'requested': 4,
    'accepted': 3,
    'acceptance': 0.75,
    'asked': [4, 2, 1],
    'by_attempt': [2, 1, 0],
    'acceptance_by_attempt': [0.5, 0.5, 0.0],
    'by_position': {'lists': [3, 0, 1], 'traces': [2, 0, 1]},
    'rejected': rejected,
    'near_duplicates': 1,
    'explanation_tokens': {'mean': 8.0, 'median': 9.0, 'max': 10},
    'tokens': {
      'prompt': 700,
      'completion': 90,
      'prompt_per_trace': 233.3,
      'completion_per_trace': 30.0,
    },
  }


def test_a_report_of_nothing():
  tally = sampling.Tally(0, [0], [0], dict.fromkeys(acceptance.REASONS, 0))
  found = sampling.summarise(tally, [], [], [])
  assert found['acceptance'] == 0 and found['acceptance_by_attempt'] == [0]
  assert found['by_position'] == {'lists': [], 'traces': []}
  assert found['tokens']['prompt_per_trace'] == 0
