"""What becomes of a part of a file, and of all parts together."""

import json

import pytest

from gr2_jax import rerank
from gr2_jax.data import parts
from gr2_jax.serve import scoring

LINES = ['{"n": 1}', '', '{"n": 2}', '{', '{"n": 3}', '{"n": "ü"}']


@pytest.fixture
def source(tmp_path, monkeypatch):
  """A file; a stand-in for the ranker answers what is an object."""

  def rank_lines(reranker, lines, source, first, batch_size):
    assert (reranker, batch_size) == ('ranker', 4)
    found = []
    for number, line in enumerate(lines, first):
      if line == b'{':
        record = {'error': f'{source}:{number}: not JSON'}
        found.append(rerank.Answer(record, True))
      elif line:
        record = {**json.loads(line), 'order': []}
        found.append(rerank.Answer(record, False))
    return found

  monkeypatch.setattr(rerank, 'rank_lines', rank_lines)
  path = tmp_path / 'in.jsonl'
  path.write_text('\n'.join(LINES))
  return path


def _made(source, folder):
  folder.mkdir(exist_ok=True)
  cut = list(parts.cut(source, 2))
  # Parts are ready in any order, and some are made twice.
  for part in [*cut[::-1], cut[1]]:
    scoring.keep(str(folder), part, scoring.rank('ranker', part, 4))
  return len(cut)


def _join(folder, count, output, strict=False):
  errors = output.with_name('errors.jsonl')
  failed = scoring.join(folder, count, output, errors, strict)
  read = lambda path: [json.loads(x) for x in path.read_text().splitlines()]
  return failed, read(output), read(errors)


def test_parts_are_joined_in_order_and_errors_apart(source, tmp_path):
  count = _made(source, tmp_path / 'made')
  failed, lines, errors = _join(tmp_path / 'made', count, tmp_path / 'out')
  assert failed == 1
  wrong = f'{source}:4: not JSON'
  assert lines == [
    {'n': 1, 'order': []},
    {'n': 2, 'order': []},
    {'error': wrong},
    {'n': 3, 'order': []},
    {'n': 'ü', 'order': []},
  ]
  assert errors == [{'error': wrong, 'line': '{'}]


def test_strict_ends_before_the_first_error(source, tmp_path):
  with source.open('a') as file:
    file.write('\n{\n')
  count = _made(source, tmp_path / 'made')
  found = _join(tmp_path / 'made', count, tmp_path / 'out', strict=True)
  wrong = f'{source}:4: not JSON'
  lines = [{'n': 1, 'order': []}, {'n': 2, 'order': []}]
  assert found == (1, lines, [{'error': wrong, 'line': '{'}])


def test_a_part_that_is_not_there_is_no_result(source, tmp_path):
  count = _made(source, tmp_path / 'made')
  scoring.path(tmp_path / 'made', scoring.LINES, 1).unlink()
  with pytest.raises(FileNotFoundError, match='lines-000000001'):
    _join(tmp_path / 'made', count, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_where_the_model_fails_no_line_is_lost(source, tmp_path, monkeypatch):
  whole = rerank.rank_lines

  def out_of_memory(reranker, lines, source, first, batch_size):
    if first == 3:
      raise RuntimeError('RESOURCE_EXHAUSTED')
    return whole(reranker, lines, source, first, batch_size)

  monkeypatch.setattr(rerank, 'rank_lines', out_of_memory)
  count = _made(source, tmp_path / 'made')
  failed, lines, errors = _join(tmp_path / 'made', count, tmp_path / 'out')
  assert failed == 2 and len(lines) == 5
  assert [line.get('n') for line in lines] == [1, None, None, 3, 'ü']
  messages = [
    f'{source}:{n}: the lines from 3 on could not be ranked '
    '(RuntimeError: RESOURCE_EXHAUSTED); rank them again.'
    for n in (3, 4)
  ]
  assert [line['error'] for line in lines[1:3]] == messages
  assert errors == [
    {'error': message, 'line': line}
    for message, line in zip(messages, ['{"n": 2}', '{'], strict=True)
  ]
