"""The endpoint teacher beside a real server, SmolLM2 under transformers.

tests/README.md has the command; the first run installs the server.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest

from gr2_jax import assets, files
from gr2_jax.lm import gguf, hf
from gr2_jax.teacher import (
  acceptance,
  asker,
  base,
  endpoint,
  journal,
  messages,
  protocol,
  sampling,
)
from gr2_jax.teacher import config as teacher_config
from gr2_jax.text import semantic_ids
from tests.integration import small
from tests.teacher import proxy

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

LISTS = 4
MAX_TOKENS = 32
SEEDS = [7 * i for i in range(LISTS)]
PROBLEMS = {'not_json', 'wrong_keys', 'unknown_item', 'cut_off', 'refused'}


@pytest.fixture(scope='module')
def model(tmp_path_factory, mesh1):
  """SmolLM2-135M out of its GGUF file, written by `hf.save`."""
  (path,) = assets.fetch('smollm2').glob('*.gguf')
  config, params, tokenizer = gguf.load(path, mesh1)
  out = tmp_path_factory.mktemp('smollm2')
  tokenizer.save(str(out / 'tokenizer.json'))
  roles = gguf.roles(path)
  names = {f'{role}_token': roles[role] for role in ('bos', 'eos', 'pad')}
  files.write_json(
    out / 'tokenizer_config.json',
    names
    | {'tokenizer_class': 'PreTrainedTokenizerFast'}
    | {'chat_template': roles['chat_template']},
  )
  special = {f'{k}_id': tokenizer.token_to_id(v) for k, v in names.items() if v}
  hf.save(out, config, params, special=special)
  # Without this the server takes the best token, whatever the temperature.
  files.write_json(
    out / 'generation_config.json', special | {'do_sample': True}
  )
  return out


class Served:
  """`bash launch/teacher_server.sh` on a port of this machine."""

  def __init__(self, model, log):
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      self.port = free.getsockname()[1]
    self.url = f'http://127.0.0.1:{self.port}/v1'
    self._model, self._log = model, log
    self._process = None

  def start(self):
    command = ['bash', 'launch/teacher_server.sh', str(self._model)]
    command += ['--host=127.0.0.1', f'--port={self.port}', '--device=cpu']
    with self._log.open('a') as log:
      self._process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=log,
        stderr=log,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'PYTHONPATH': ''},
      )
    # The first time it installs.
    for _ in range(1200):
      if self._process.poll() is not None:
        raise RuntimeError(self._log.read_text()[-4000:])
      with contextlib.suppress(OSError):
        health = f'http://127.0.0.1:{self.port}/health'
        if urllib.request.urlopen(health, timeout=5).status == 200:
          return
      time.sleep(0.5)
    raise RuntimeError(self._log.read_text()[-4000:])

  def kill(self):
    if self._process is not None:
      self._process.send_signal(signal.SIGKILL)
      self._process.wait()
      self._process = None


@pytest.fixture(scope='module')
def served(model, tmp_path_factory):
  running = Served(model, tmp_path_factory.mktemp('log') / 'serve.log')
  running.start()
  yield running
  running.kill()


WRITER = messages.Writer(
  small.ITEMS,
  small.sids(),
  teacher_config.MessageConfig(history_items=3, tokens_a_word=1.5),
  explanation_tokens=40,
)
REQUESTS = [
  base.Request(np.arange(i, i + 3), np.array([i + 3, i + 9, i + 6]))
  for i in range(LISTS)
]


def _teacher(url, model, **changes):
  settings = dict(concurrency=1, timeout=120.0, retries=2, backoff=0.1)
  return endpoint.EndpointTeacher(
    WRITER,
    teacher_config.SamplingConfig(max_tokens=MAX_TOKENS),
    teacher_config.EndpointConfig(url=url, **settings | changes),
    str(model),
  )


def _ask(teacher, rows=range(LISTS), seeds=SEEDS):
  found = {}
  rows = list(rows)
  asked = [REQUESTS[row] for row in rows]
  for group in teacher.answer(asked, 0, [seeds[row] for row in rows]):
    found.update((rows[index], answer) for index, answer in group)
  return found


def _texts(found):
  return {row: (answer.text, answer.problem) for row, answer in found.items()}


@pytest.fixture(scope='module')
def undisturbed(served, model):
  return _ask(_teacher(served.url, model))


def test_the_server_understands_us(undisturbed, served, model, caplog):
  assert sorted(undisturbed) == list(range(LISTS))
  for answer in undisturbed.values():
    assert answer.text.strip()
    assert answer.problem is None or answer.problem in PROBLEMS
    assert 200 < answer.prompt_tokens < 2000
    assert 0 < answer.completion_tokens <= MAX_TOKENS
    cut_off = answer.completion_tokens == MAX_TOKENS
    assert (answer.problem == 'cut_off') == cut_off
  texts = {answer.text for answer in undisturbed.values()}
  assert len(texts) == LISTS
  # Other seeds, other words; several at a time are answered, too.
  others = _ask(
    _teacher(served.url, model, concurrency=3), seeds=[s + 1 for s in SEEDS]
  )
  assert not texts & {answer.text for answer in others.values()}
  # It ignores schemas and says so to nobody.
  assert 'refuses JSON by schema' not in caplog.text


def test_another_name_is_refused(served):
  with pytest.raises(protocol.EndpointError, match=r'Correct traces\.model'):
    _ask(_teacher(served.url, 'gpt-7'), [0])


def _collect(teacher, folder):
  """Samples traces of some lists as the stage does: (tally, lines kept)."""
  tasks = [
    asker.Task(row, 5, request, int(request.candidates[1]))
    for row, request in enumerate(REQUESTS[:3])
  ]
  kept = journal.Journal(folder, teacher.identity)
  accept = acceptance.Acceptance(
    lambda text: True, semantic_ids.Citations(small.sids())
  )
  _, tally = sampling.collect(
    teacher,
    tasks,
    mode=acceptance.REJECTION,
    attempts=2,
    acceptance=accept,
    seed=0,
    journal=kept,
  )
  return tally, kept.path.read_text().splitlines()


def test_a_killed_server_loses_nothing(
  served, model, tmp_path, monkeypatch, whole=journal.Journal.append
):
  teacher = _teacher(served.url, model)
  tally, lines = _collect(teacher, tmp_path / 'undisturbed')
  assert tally.requested == 3
  assert tally.asked[0] == 3
  assert sum(tally.asked) == tally.accepted + sum(tally.rejected.values())
  assert sum(tally.asked) == len(lines) - 1
  assert tally.completion_tokens > 0

  def append(self, entries):
    whole(self, entries)
    if len(self) == 2:
      served.kill()

  with monkeypatch.context() as patch:
    patch.setattr(journal.Journal, 'append', append)
    with pytest.raises(protocol.EndpointError, match='no answer in 3 tries'):
      _collect(teacher, tmp_path / 'killed')
  served.start()
  quick = [f for f in proxy.TRANSIENT if f not in ('late', 'endless')]
  with proxy.Proxy(served.url, proxy.by_chance(2, quick)) as between:
    teacher = _teacher(between.url, model, retries=50)
    again, others = _collect(teacher, tmp_path / 'killed')
  assert dataclasses.asdict(again) == dataclasses.asdict(tally)
  assert others == lines


def test_faults_at_random_moments_change_nothing(undisturbed, served, model):
  quick = [f for f in proxy.TRANSIENT if f not in ('late', 'endless')]
  with proxy.Proxy(served.url, proxy.by_chance(5, quick, 0.6)) as between:
    found = _ask(_teacher(between.url, model, retries=50))
  assert _texts(found) == _texts(undisturbed)
  assert set(between.seen) - {proxy.PASS, 'slow'}


def test_an_endless_answer_is_cut_off(undisturbed, served, model):
  schedule = lambda number: 'endless' if number == 0 else proxy.PASS
  with proxy.Proxy(served.url, schedule) as between:
    found = _ask(_teacher(between.url, model, timeout=20.0), [0])
  assert _texts(found) == {0: _texts(undisturbed)[0]}
