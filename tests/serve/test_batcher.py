"""The queue: batches, its bound, failures, its end."""

import threading
import time

import pytest

from gr2_jax.serve import batcher


class Answers:
  """Notes its batches, and waits until it may go on."""

  def __init__(self):
    self.batches, self.go = [], threading.Event()

  def __call__(self, jobs):
    self.go.wait(10)
    names = [job.record['name'] for job in jobs]
    self.batches.append(names)
    if 'boom' in names:
      raise RuntimeError('boom')
    return names


@pytest.fixture
def answers():
  return Answers()


@pytest.fixture
def queue(answers):
  made = batcher.Batcher(answers, size=4, wait=0.0, bound=8)
  yield made
  answers.go.set()
  made.close()


def _job(name):
  return batcher.Job({'name': name}, name)


def _hold(queue):
  """Keeps the thread busy with one list, so that others wait."""
  first = _job('first')
  queue.submit([first])
  while len(queue):
    time.sleep(0.001)
  return first


def test_what_waits_is_answered_together(queue, answers):
  jobs = [_hold(queue), *(_job(str(i)) for i in range(6))]
  queue.submit(jobs[1:])
  answers.go.set()
  assert [job.future.result(10).answer for job in jobs] == [
    *('first', '0', '1', '2', '3', '4', '5'),
  ]
  assert answers.batches == [['first'], ['0', '1', '2', '3'], ['4', '5']]
  assert jobs[1].future.result().size == 4
  assert jobs[1].future.result().queued >= 0


def test_a_list_waits_for_others_no_longer_than_it_may(answers):
  answers.go.set()
  queue = batcher.Batcher(answers, size=2, wait=0.2, bound=8)
  begin = time.monotonic()
  one, two = _job('1'), _job('2')
  queue.submit([one])
  queue.submit([two])
  # A full batch starts at once.
  assert one.future.result(10).size == two.future.result(10).size == 2
  assert time.monotonic() - begin < 0.2
  three = _job('3')
  queue.submit([three])
  assert three.future.result(10).queued >= 0.19
  queue.close()


def test_batches_are_powers_of_two(queue, answers):
  # Five or three would be computed as eight or four.
  jobs = [_hold(queue), *(_job(str(i)) for i in range(7))]
  queue.submit(jobs[1:])
  answers.go.set()
  for job in jobs:
    job.future.result(10)
  assert [len(names) for names in answers.batches] == [1, 4, 2, 1]


def test_what_waits_is_counted(answers):
  answers.go.set()
  counts = []
  queue = batcher.Batcher(
    answers, size=2, wait=0.0, bound=8, counted=counts.append
  )
  jobs = [_job(str(i)) for i in range(3)]
  queue.submit(jobs)
  jobs[2].future.result(10)
  assert counts == [3, -2, -1]
  queue.close()


def test_a_full_queue_refuses_whole_requests(queue, answers):
  _hold(queue)
  queue.submit([_job(str(i)) for i in range(6)])
  with pytest.raises(batcher.Full) as caught:
    queue.submit([_job('a'), _job('b'), _job('c')])
  assert caught.value.retry_after >= 1 and len(queue) == 6
  queue.submit([_job('a'), _job('b')])


def test_who_was_cancelled_takes_no_place(queue, answers):
  _hold(queue)
  jobs = [_job(str(i)) for i in range(5)]
  queue.submit(jobs)
  jobs[0].future.cancel()
  answers.go.set()
  assert jobs[4].future.result(10).size == 4
  assert answers.batches[1] == ['1', '2', '3', '4']


def test_a_failure_stays_with_its_list(queue, answers):
  _hold(queue)
  jobs = [_job('a'), _job('boom'), _job('b')]
  queue.submit(jobs)
  answers.go.set()
  assert jobs[0].future.result(10).answer == 'a'
  assert jobs[2].future.result(10).answer == 'b'
  with pytest.raises(RuntimeError, match='boom'):
    jobs[1].future.result(10)


def test_calls_run_on_the_same_thread(queue, answers):
  answers.go.set()
  assert queue.call(threading.current_thread).result(10) is queue.thread
  with pytest.raises(ZeroDivisionError):
    queue.call(lambda: 1 / 0).result(10)


def test_the_end_answers_what_waits(queue, answers):
  jobs = [_hold(queue), _job('a'), _job('b')]
  queue.submit(jobs[1:])
  threading.Timer(0.05, answers.go.set).start()
  queue.close()
  assert all(job.future.done() for job in jobs)
  with pytest.raises(RuntimeError, match='shutting down'):
    queue.submit([_job('c')])


def test_nothing_is_lost_or_doubled_from_many_threads(answers):
  answers.go.set()
  queue = batcher.Batcher(answers, size=8, wait=0.001, bound=1000)
  jobs = [[_job(f'{i} {j}') for j in range(20)] for i in range(8)]
  send = lambda own: [queue.submit([job]) for job in own]
  threads = [threading.Thread(target=send, args=[own]) for own in jobs]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for own in jobs:
    for job in own:
      assert job.future.result(10).answer == job.record['name']
  queue.close()
  assert sum(map(len, answers.batches)) == 160
