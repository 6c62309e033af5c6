"""The first answers on trial: what stops a run, and what it is told."""

import pytest

from gr2_jax.teacher import acceptance, asker, base, journal, sampling
from tests.teacher.scripted import Scripted, accept, request, sound

TASKS = [asker.Task(row, 5, request([1, 2, 3]), target=1) for row in range(50)]


def _bad(reason, text='Certainly! Here is'):
  return base.Answer([], '', problem=reason, text=text)


def _collect(path, script, tasks=TASKS, attempts=3, insist=False):
  teacher = Scripted(script)
  kept = journal.Journal(path, teacher.identity)
  run = lambda: sampling.collect(
    teacher,
    tasks,
    mode='rejection',
    attempts=attempts,
    acceptance=accept(),
    seed=0,
    journal=kept,
    insist=insist,
  )
  return run, teacher, kept


@pytest.mark.parametrize('reason', acceptance.UNREADABLE)
def test_it_stops_after_32_answers_of_one_reason(tmp_path, reason):
  run, teacher, kept = _collect(tmp_path, lambda *_: _bad(reason))
  with pytest.raises(asker.FirstAnswersError) as error:
    run()
  message = str(error.value)
  assert f'rejected: {reason} 32; {acceptance.REMEDIES[reason]}' in message
  assert "One begins: 'Certainly! Here is'." in message
  assert '--insist' in message and str(kept.path) in message
  assert len(teacher.asked) == len(kept) == 32
  # All are there when it is started again, and 32 others are on trial.
  again = journal.Journal(tmp_path, teacher.identity)
  assert len(again) == 32


def test_few_lists_come_to_32_by_their_attempts(tmp_path):
  run, teacher, _ = _collect(
    tmp_path, lambda *_: _bad('not_json'), TASKS[:12], attempts=5
  )
  with pytest.raises(asker.FirstAnswersError):
    run()
  assert [attempt for attempt, *_ in teacher.asked] == (
    [0] * 12 + [1] * 12 + [2] * 8
  )


def test_with_insist_all_are_asked(tmp_path):
  run, teacher, _ = _collect(
    tmp_path, lambda *_: _bad('not_json'), attempts=2, insist=True
  )
  traces, tally = run()
  assert traces == [] and tally.rejected['not_json'] == 100
  assert len(teacher.asked) == 100


@pytest.mark.parametrize(
  'first',
  [
    sound([1, 2, 3]),
    sound([2, 1, 3]),  # Sound, but for the item on top.
    base.Answer([1, 2], 'x'),  # Rejected for another reason.
  ],
)
def test_one_other_answer_passes_it(tmp_path, first):
  def script(asked, attempt, seed):
    own = attempt == 0 and seed == seeds[31]
    return first if own else _bad('not_json')

  seeds = [asker.request_seed(0, task.user, 5, 0) for task in TASKS]
  run, teacher, _ = _collect(tmp_path, script)
  _, tally = run()
  assert sum(tally.asked) == len(teacher.asked) > 100


def test_a_mixture_of_unreadable_ones_is_in_vain(tmp_path):
  kinds = ['cut_off', 'not_json', 'not_json']
  run, teacher, _ = _collect(tmp_path, lambda a, b, seed: _bad(kinds[seed % 3]))
  with pytest.raises(
    asker.FirstAnswersError, match='not_json .*, cut_off .*max_tok'
  ):
    run()
  assert len(teacher.asked) == 32


def test_a_kept_answer_of_an_earlier_run_passes_it(tmp_path):
  first, *_ = _collect(tmp_path, lambda *_: sound([1, 2, 3]), TASKS[:1])
  first()
  run, *_ = _collect(tmp_path, lambda *_: _bad('not_json'), attempts=1)
  assert run()[1].rejected['not_json'] == 49


def test_a_long_or_empty_answer_in_the_message(tmp_path):
  run, *_ = _collect(
    tmp_path / 'a', lambda *_: _bad('not_json', '\x1b[2J' * 99)
  )
  with pytest.raises(asker.FirstAnswersError) as error:
    run()
  assert '\x1b' not in str(error.value) and len(str(error.value)) < 1200
  run, *_ = _collect(tmp_path / 'b', lambda *_: _bad('refused', ''))
  with pytest.raises(asker.FirstAnswersError, match='They have no text'):
    run()
