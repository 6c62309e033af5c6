"""Answers on disk: cut off anywhere, of other identities, damaged."""

import json

import numpy as np
import pytest

from gr2_jax.teacher import base, journal
from tests.teacher.scripted import request

IDENTITY = {'teacher': 'a', 'prompt': 'v1', 'weights': {'top': 3}}
ONE, TWO = (3, 7, 'aa'), (3, 8, 'bb')
PLAIN = base.Answer([2, 1], 'why "é"\n')
WHOLE = base.Answer(
  [], '', 'not_json', text='{"expla', prompt_tokens=900, completion_tokens=12
)


def fill(directory):
  made = journal.Journal(directory, IDENTITY)
  made.append([(ONE, 0, PLAIN), (TWO, 0, WHOLE)])
  made.append([(ONE, 1, base.Answer([1, 2], ''))])
  return made


def facts(answer):
  return answer and (answer.ranking, answer.explanation, answer.problem)


def test_what_was_appended_is_there_again(tmp_path):
  for read in (fill(tmp_path), journal.Journal(tmp_path, IDENTITY)):
    assert len(read) == 3
    assert facts(read.get(ONE, 0)) == ([2, 1], 'why "é"\n', None)
    found = read.get(TWO, 0)
    assert facts(found) == ([], '', 'not_json')
    assert (found.prompt_tokens, found.completion_tokens) == (900, 12)
    assert read.get(TWO, 1) is None and read.get((3, 7, 'bb'), 0) is None


def test_the_text_stays_on_disk(tmp_path):
  made = fill(tmp_path)
  assert made.get(TWO, 0).text == ''
  lines = [json.loads(line) for line in made.path.read_text().splitlines()]
  assert lines[0] == {'identity': IDENTITY}
  assert lines[1] == {
    'user': 3, 'position': 7, 'list': 'aa', 'attempt': 0,
    'ranking': [2, 1], 'explanation': 'why "é"\n',
  }  # fmt: skip
  assert lines[2]['text'] == '{"expla'


def test_arrays_and_half_characters_can_be_kept(tmp_path):
  made = journal.Journal(tmp_path, IDENTITY)
  made.append([(ONE, 0, base.Answer(list(np.arange(2)), '\ud800'))])
  read = journal.Journal(tmp_path, IDENTITY).get(ONE, 0)
  assert facts(read) == ([0, 1], '\ud800', None)


def test_cut_off_anywhere_the_whole_lines_stay(tmp_path):
  path = fill(tmp_path).path
  content = path.read_bytes()
  first, last = content.index(b'\n'), content.rstrip().rindex(b'\n')
  for size in (0, 1, first, first + 1, *range(last - 1, len(content) + 1)):
    path.write_bytes(content[:size])
    read = journal.Journal(tmp_path, IDENTITY)
    whole = max(content[:size].count(b'\n') - 1, 0)
    assert len(read) == whole
    read.append([((9, 9, 'cc'), 0, PLAIN)])
    assert len(journal.Journal(tmp_path, IDENTITY)) == whole + 1


def test_another_identity_has_another_file(tmp_path):
  first = fill(tmp_path)
  other = journal.Journal(tmp_path, {**IDENTITY, 'prompt': 'v2'})
  assert other.path != first.path and len(other) == 0
  other.append([(ONE, 0, WHOLE)])
  assert facts(journal.Journal(tmp_path, IDENTITY).get(ONE, 0)) == facts(PLAIN)


def test_a_file_of_others_and_a_damaged_one_are_refused(tmp_path):
  path = fill(tmp_path).path
  content = path.read_text()
  path.write_text(content.replace('"v1"', '"v2"'))
  with pytest.raises(ValueError, match='move it away'):
    journal.Journal(tmp_path, IDENTITY)
  path.write_text(content.replace('"ranking"', 'ranking', 1))
  with pytest.raises(ValueError, match=r'\.jsonl:2: not JSON'):
    journal.Journal(tmp_path, IDENTITY)
  for damage in ('rankinG', '\udcff'):
    damaged = content.replace('ranking', damage, 1)
    path.write_bytes(damaged.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match=r'\.jsonl:2: no'):
      journal.Journal(tmp_path, IDENTITY)


def test_texts_are_found_on_disk(tmp_path):
  kept = fill(tmp_path)
  assert kept.text(TWO, 0) == WHOLE.text
  assert kept.text(ONE, 0) == kept.text(TWO, 1) == ''


def test_keys_follow_what_is_shown():
  plain = request([1, 2], history=[5])
  name = lambda asked: journal.keys([(3, 7)], [asked])[0]
  assert name(plain) == name(request([1, 2], history=[5]))
  others = [
    request([2, 1], history=[5]),
    request([1, 2], history=[5, 6]),
    request([1, 2], history=[5], hint=1),
  ]
  assert len({name(plain), *map(name, others)}) == 4
  twice = journal.keys([(3, 7), (3, 7)], [plain, plain])
  assert twice[0] == name(plain) != twice[1]
