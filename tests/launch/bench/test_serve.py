"""The load and the soak against a server that sorts, and that can go wrong."""

import asyncio
import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from gr2_jax.data import dataset
from gr2_jax.text import answer
from launch.bench import contests, serve
from launch.bench.load import answers, http_client, process, soak, traffic
from launch.bench.peers import transformers_server
from tests.serve import fakes

# A server of the command, with an engine that sorts.
CODE = """
from gr2_jax.serve import engine
from launch import cli, serve
from tests.serve import fakes

engine.watch_compilations = lambda heard: None
cli.run(lambda argv: serve.run(lambda workdir, **more: fakes.Sorts(workdir)))
"""
LIST = {'history': ['i0'], 'candidates': ['i1', 'i3', 'i2']}


def _answer(record, number=0):
  """What a sound server answers."""
  order = sorted(record['candidates'], reverse=True)
  results = [
    {
      'item_id': name,
      'index': record['candidates'].index(name),
      'relevance_score': float(-place),
    }
    for place, name in enumerate(order)
  ]
  return {'id': f'{number}', 'results': results, 'valid': True}


def test_percentiles_are_those_of_all_requests():
  assert traffic.percentiles(range(101)) == {
    'p50': 50, 'p95': 95, 'p99': 99, 'most': 100,
  }  # fmt: skip


def test_an_answer_is_that_of_its_list():
  right = _answer(LIST)
  assert answers.scores(right) == [-2.0, 0.0, -1.0]
  assert not answers.problem(LIST, right, [-2.0, 0.001, -1.0])
  for change, wanted, message in (
    ({'results': right['results'][:2]}, None, 'places'),
    ({'results': right['results'][::-1]}, None, 'do not fall'),
    (_answer({'candidates': ['i1', 'i3', 'i4']}), None, "'i4' where 'i2' was"),
    ({}, [-2.0, 0.5, -1.0], 'and alone 0.5'),
  ):
    problem = answers.problem(LIST, right | change, wanted)
    assert message in problem, (change, problem)
  assert 'no results' in answers.problem(LIST, {'error': {}})


def _account(asked, *given):
  made = answers.Account(asked=asked)
  for status, document in given:
    made.book([LIST], status, document, [None])
  return made


def test_each_request_has_one_answer():
  first, second = (_answer(LIST, number) for number in range(2))
  assert _account(2, (200, first), (200, second)).sound
  assert _account(2, (200, first), (429, {})).sound
  # One that never came, one that came twice, an error, another one's.
  other = _answer({'candidates': ['i4', 'i5', 'i6']}, 2)
  for found, kind in (
    (_account(2, (200, first)), None),
    (_account(2, (200, first), (200, first)), 'doubled'),
    (_account(1, (500, {})), 'wrong'),
    (_account(1, (200, {'id': '5', 'outputs': [first, second]})), 'wrong'),
    (_account(1, (200, other)), 'wrong'),
  ):
    assert not found.sound
    assert kind is None or found.counts[kind] == len(found.problems) == 1
  late = _account(1, (200, {**first, 'fallback': 'deadline', 'valid': False}))
  assert late.sound and late.counts['fallback'] == 1


def test_growth_is_of_what_comes_after_the_start():
  memory = [(0, 100.0), (2000, 400.0)]
  memory += [(n, 400.0 + n / 500) for n in range(3000, 10_000, 1000)]
  found = soak.growth(memory)
  assert found['slope_mib_a_thousand_requests'] == pytest.approx(2.0)
  assert found['mib'][:2] == [[0, 100.0], [2000, 400.0]]


def test_what_the_peer_may_write_is_a_permutation():
  fmt = answer.AnswerFormat(
    open=1, top=2, mid=3, sep=6, close=7, eos=8, pad=0, sid_begin=4, sid_end=5,
    sid_offset=10, levels=2, codes=8,
  )  # fmt: skip
  rows = [[(10, 20), (10, 21), (11, 20)], [(12, 22), (13, 23)]]
  following = transformers_server.allowed(rows, fmt)
  # The first item, its end, and the list that begins with it.
  written = [10, 21, 5, 3, 10, 21, 6, 10, 20, 6, 11, 20, 7, 0]
  wanted = [
    [10, 11], [20, 21], [5], [3], [10], [21], [6], [10, 11], [20], [6], [11],
    [20], [7], [0],
  ]  # fmt: skip
  for place, tokens in enumerate(wanted):
    assert following(0, written[:place]) == tokens, place
  assert following(1, [13, 23, 5, 3, 13, 23, 6]) == [12]
  listed = transformers_server._entries(written[4:], 3, 2)
  assert listed == [(10, 21), (10, 20), (11, 20)]


class _Numbered:
  """Lists of `traffic.Lists` without a run: items of the fakes."""

  def make(self, number):
    rng = np.random.default_rng(number)
    drawn = rng.choice([f'i{i}' for i in range(100)], 5, replace=False)
    return {'history': [f'i{number % 9}'], 'candidates': drawn.tolist()}


def test_lists_are_of_a_run():
  items = [dataset.Item(f'{i}', '') for i in range(50)]
  given = dataset.from_sequences('x', items, {'u': np.arange(9)})
  prompt = types.SimpleNamespace(max_candidates=10)
  store = types.SimpleNamespace(
    dataset=given, prompter=types.SimpleNamespace(cfg=prompt)
  )
  lists = traffic.Lists(store, seed=0)
  made = [lists.make(number) for number in range(20)]
  assert made[3] == lists.make(3)
  assert len({tuple(sorted(x['candidates'])) for x in made}) == 20
  for each in made:
    assert len(set(each['candidates'])) == 10
    ids = [str(i) for i in range(len(each['history']))]
    assert each['history'] == ids and ids


@contextlib.contextmanager
def _serve(**environment):
  flags = '--workdir=/runs/fake', '--port=0', '--queue=1024'
  command = [sys.executable, '-c', CODE, *flags, '--deadline_ms=20000']
  own = {**os.environ, 'JAX_PLATFORMS': 'cpu', **environment}
  with process.serving(command, own) as server:
    yield server


def test_a_load_and_a_soak(tmp_path):
  with _serve(GR2_ADMIN_TOKEN=soak.TOKEN) as server:
    drive = serve._Driver(server, _Numbered(), 8, 40)
    contest = serve._contest('itself', drive, drive, 1.0)
    row = contests.measure(contest, 1)
    assert row['ratio'] > 0 and set(row['seconds']) == {'ours', 'theirs'}
    assert 0 < row['seconds']['ours']['p50'] <= row['seconds']['ours']['p99']
    assert sum(row['batches_upto'].values()) > 0
    assert 1 <= row['lists_a_batch'] <= 32
    assert set(row['cpu_ms_a_list']) == {'ours', 'theirs'}
    workdir = tmp_path / 'run'
    workdir.mkdir()
    found = soak.run(server, _Numbered(), 400, str(workdir), 2)
  assert found['sound'], json.dumps(found)
  assert found['requests'] == 400 and not found['problems']
  patient, rude = found['patient'], found['rude']
  assert patient['answered'] == patient['asked']
  assert rude['gone'] and rude['cut']
  asked = sum(rude.values()) - rude.get('refused', 0) + patient['asked']
  assert asked == 400
  assert len(found['reloads']) == 2 and not found['waiting_at_the_end']
  assert found['memory']['mib'][0][1] > 10


class _Faulty(http.server.BaseHTTPRequestHandler):
  """Answers each third request wrongly, in the way of its class."""

  protocol_version, fault = 'HTTP/1.1', ''
  numbers = None

  def do_POST(self):
    record = json.loads(self.rfile.read(int(self.headers['content-length'])))
    number = next(self.numbers)
    bad = number % 3 == 2
    if bad and self.fault == 'lost':
      self.close_connection = True
      return
    if bad and self.fault == 'other':
      record['candidates'][0] = 'x'
    if bad and self.fault == 'doubled':
      number -= 1
    answer = _answer(record, number)
    if bad and self.fault == 'late':
      answer |= {'fallback': 'deadline', 'valid': False}
    body = json.dumps(answer).encode()
    self.send_response(200)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def _faulty(fault):
  handler = type(
    'Faulty', (_Faulty,), {'fault': fault, 'numbers': iter(range(99))}
  )
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()


@pytest.mark.parametrize(
  ('fault', 'message'),
  [
    ('lost', 'Of 3 lists'),
    ('other', "'x' where"),
    ('doubled', "doubled': 1"),
    ('late', '1 of 5 lists were not ranked'),
  ],
)
def test_a_load_fails_where_the_server_does(fault, message):
  lists = [_Numbered().make(number) for number in range(5)]
  with _faulty('') as port:
    assert len(traffic.drive(port, lists, 1)) == 5
  with _faulty(fault) as port, pytest.raises(RuntimeError, match=message):
    traffic.drive(port, lists, 1)


def test_a_soak_fails_where_the_server_does(tmp_path, monkeypatch):
  """A patient client books an answer that never comes."""
  with _faulty('lost') as port:
    server = process.Server(port, os.getpid())
    made = soak.Soak(server, _Numbered(), 5, [])
    monkeypatch.setattr(soak, '_kind', lambda rng: 'patient')
    asyncio.run(made._client(0))
  assert not made.account.sound
  assert made.account.counts['lost'] == 1 and made.account.asked == 5


def test_a_slow_reader_gets_the_whole_answer(monkeypatch):
  monkeypatch.setattr(http_client, '_PAUSE', 0.0)

  async def ask(port):
    connection = await http_client.connect(port, slowly=True)
    await connection.send('/', {'candidates': [f'i{i}' for i in range(300)]})
    status, body = await connection.read(slowly=True)
    more = await connection.more(0.01)
    connection.close()
    return status, json.loads(body), more

  with _faulty('') as port:
    status, found, more = asyncio.run(ask(port))
  assert status == 200 and len(found['results']) == 300 and not more


BENCH = """
from launch import cli
from launch.bench import __main__ as bench
from launch.bench import serve

row = {'name': 'soak', 'memory': {}}
rows = [row | {'sound': sound} for sound in (SOUND, True)]
serve._soak = lambda workdir, requests: iter(rows)
cli.run(bench.main)
"""


@pytest.mark.parametrize('sound', [True, False])
def test_a_soak_with_faults_ends_with_1(sound, tmp_path):
  command = [sys.executable, '-c', BENCH.replace('SOUND', str(sound)), 'serve']
  output = tmp_path / 'report.json'
  done = subprocess.run(
    [*command, '--workdir=x', '--soak=5', f'--output={output}'],
    capture_output=True, text=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    cwd=pathlib.Path(__file__).resolve().parents[3],
  )  # fmt: skip
  assert done.returncode == (0 if sound else 1), done.stderr
  assert ('The soak found faults' in done.stderr) != sound
  report = json.loads(output.read_text())
  assert report['results'][0]['sound'] == sound
  assert report['machine']['cores'] > 0 and report['machine']['load'] >= 0
  assert '"sound": true' in done.stdout


def test_a_server_that_ends_says_why():
  for code, message in (
    ('sys.exit("no such run")', 'ended with 1:\nno such run'),
    (
      'print("It could not be made ready.", file=sys.stderr, flush=True); '
      'time.sleep(600)',
      'ended with -15:\nIt could not be made ready',
    ),
  ):
    command = [sys.executable, '-c', f'import sys, time; {code}']
    with pytest.raises(RuntimeError, match=message):
      with process.serving(command, os.environ):
        pass


def test_connections_outlive_those_who_keep_them():
  # An idle one is closed under the next request where the server is the first.
  # In a process of its own, which gets the server's flags.
  code = "from launch import serve; print(serve._HTTP['timeout_keep_alive'])"
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).resolve().parents[3],
  )
  assert int(done.stdout) > 60, done.stderr


def test_the_group_needs_a_run():
  with pytest.raises(ValueError, match='--workdir=DIR'):
    serve.parts('', 0)
  assert list(serve.parts('x', 5)) == ['soak']
  assert list(serve.parts('x', 0))[2:] == [
    '32 clients', '128 clients', 'cached histories',
  ]  # fmt: skip


def test_the_peer_is_an_engine():
  """It has what the server asks of the engines that tests use."""
  names = {name for name in dir(fakes.Sorts) if not name.startswith('_')}
  names -= {'explains', 'grow', 'save'}
  engine = transformers_server.Engine
  fields = {field.name for field in dataclasses.fields(engine)}
  assert names <= fields | set(dir(engine))
