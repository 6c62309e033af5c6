"""The traces stage with a server as its teacher, whatever happens between."""

import itertools
import logging

import ml_collections
import numpy as np
import pytest

from gr2_jax import files
from gr2_jax.stages import traces
from gr2_jax.teacher import (
  asker,
  client,
  connection,
  journal,
  protocol,
  rationale,
)
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording
from tests.integration import small
from tests.teacher import fake_server, prompted, proxy

KEY = 'sk-stages-0123456789abcdef'


@pytest.fixture
def run(workdir):
  """`run(url, **endpoint)` runs the stage; (its summary, bytes of traces)."""
  rng = np.random.default_rng(0)
  lines = itertools.chain(wording.corpus(small.ITEMS), rationale.corpus())
  vocab = vocab_lib.Vocab.train(lines, 400, levels=2, codes=5)
  vocab.save(workdir / 'midtrain' / 'vocab')
  (workdir / 'candidates').mkdir()
  for stage in ('midtrain', 'candidates'):
    files.write_json(workdir / stage / 'DONE', {'fingerprint': stage})
  sequences = small.dataset()
  candidates = np.stack([rng.permutation(20)[:3] for _ in range(12)])
  goal = np.array([sequences.sequence(u)[5] for u in range(12)])
  missed = (candidates != goal[:, None]).all(axis=1)
  candidates[missed, 1] = goal[missed]
  files.atomic_savez(
    workdir / 'candidates' / 'train.npz',
    user=np.arange(12),
    position=np.full(12, 5),
    candidates=candidates,
    scores=np.zeros((12, 3), np.float32),
    target=(candidates == goal[:, None]).argmax(axis=1),
  )

  def start(url, **settings):
    settings = dict(url=url, backoff=0.001, retries=100) | settings
    config = ml_collections.ConfigDict(
      {
        'seed': 0,
        'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
        'data': {'split': {}},
        'candidates': {},
        'text': {'prompt': {'max_candidates': 3}},
        'traces': {
          'sft_share': 1.0,
          'teacher': 'endpoint',
          'model': 'org/m',
          'attempts': 3,
          'explanation_tokens': 80,
        },
        'endpoint': settings,
      }
    )
    summary = traces.run(config, workdir)
    summary = {k: v for k, v in summary.items() if k != 'seconds'}
    return summary, (workdir / 'traces' / 'traces.jsonl').read_bytes()

  return start


@pytest.fixture
def server():
  with fake_server.FakeServer(prompted.write) as running:
    yield running


def test_counts_add_up(run, server):
  summary, _ = run(server.url)
  assert summary['teacher'] == 'org/m'
  assert summary['requested'] == summary['asked'][0] == 12
  assert 0 < summary['accepted'] == sum(summary['by_attempt'])
  turned_down = sum(summary['rejected'].values())
  assert turned_down == sum(summary['asked']) - summary['accepted']
  assert summary['rejected']['not_json'] > 0
  assert summary['rejected']['wrong_top'] > 0
  assert turned_down == sum(
    summary['rejected'][reason] for reason in ('not_json', 'wrong_top')
  )
  assert len(server.requests) == sum(summary['asked'])
  assert summary['tokens']['completion'] == 7 * sum(summary['asked'])
  temperatures = {request['temperature'] for request in server.requests}
  assert temperatures == {0.7, 0.8, 0.9}
  seeds = [request['seed'] for request in server.requests]
  assert len(set(seeds)) == len(seeds)


@pytest.fixture
def undisturbed(run, workdir, server):
  found = run(server.url)
  (workdir / 'traces').rename(workdir / 'undisturbed')
  return found


@pytest.mark.parametrize('seed', range(2))
def test_faults_at_random_moments_change_no_byte(
  seed, undisturbed, run, server
):
  quick = [f for f in proxy.TRANSIENT if f not in ('late', 'endless')]
  with proxy.Proxy(server.url, proxy.by_chance(seed, quick)) as between:
    assert run(between.url) == undisturbed


@pytest.mark.parametrize('calls', [1, 4])
def test_killed_it_asks_only_for_the_rest(
  calls, undisturbed, run, server, killed_after
):
  asked = len(server.requests)
  with killed_after(journal.Journal, 'append', calls):
    run(server.url, concurrency=2)
  assert run(server.url, concurrency=2) == undisturbed
  # What was under way or not yet kept when it was killed is asked again.
  again = len(server.requests) - 2 * asked
  assert 0 <= again <= asked - calls


def test_a_server_that_dies_loses_nothing(undisturbed, run, server):
  asked = len(server.requests)
  dies = lambda number: 'drop_before' if number >= 10 else proxy.PASS
  with proxy.Proxy(server.url, dies) as between:
    with pytest.raises(
      protocol.EndpointError, match='gave no answer in 2 tries'
    ):
      run(between.url, retries=1, concurrency=1)
  assert len(server.requests) == asked + 10
  assert run(server.url) == undisturbed
  assert len(server.requests) == 2 * asked


def test_a_budget_is_of_the_whole_run(undisturbed, run, server):
  asked = len(server.requests)
  for limit in (5, 9):
    with pytest.raises(client.BudgetError, match=f'{limit} requests'):
      run(server.url, max_requests=limit)
    assert len(server.requests) == asked + limit
  with pytest.raises(client.BudgetError, match=r'endpoint\.max_tokens=1'):
    run(server.url, max_tokens=1)
  assert len(server.requests) == asked + 9
  assert run(server.url, max_requests=asked) == undisturbed
  assert len(server.requests) == 2 * asked


def test_the_key_is_in_no_file_and_no_log(
  run, workdir, monkeypatch, caplog, capfd
):
  monkeypatch.setenv(connection.KEY, KEY)
  caplog.set_level(logging.DEBUG)

  def echo(request, headers):
    said = {'error': {'message': f'{dict(headers)}'}}
    return (429, said) if request['seed'] % 3 else (401, said)

  with fake_server.FakeServer(prompted.write, refuse=echo) as server:
    with pytest.raises(protocol.EndpointError, match='GR2_TEACHER_API_KEY'):
      run(server.url, structured='none')
  with fake_server.FakeServer(lambda *_: f'Bearer {KEY}') as server:
    with pytest.raises(
      asker.FirstAnswersError, match=r"One begins: 'Bearer \[key\]'"
    ):
      run(server.url)
    with pytest.raises(ValueError, match='None of 12.*not_json 36; .*think'):
      run(server.url, insist=True)
  assert len(server.requests) == 36
  written = [path for path in workdir.rglob('*') if path.is_file()]
  assert any('answers' in str(path) for path in written)
  for path in written:
    assert KEY.encode() not in path.read_bytes(), path
  streams = capfd.readouterr()
  for text in (caplog.text, streams.out, streams.err):
    assert KEY not in text
