"""Round trips, layout and determinism of the vocabulary."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.text import pieces, semantic_ids
from gr2_jax.text import vocab as vocab_lib

LINES = [
  'Toy Story (1995) | Animation > Comedy',
  'GoldenEye (1995) | Action > Thriller',
  'Four Rooms (1995) | Thriller',
  'Le Fabuleux Destin d\u2019Am\u00e9lie Poulain (2001)',
] * 3
LOOK_ALIKES = [
  '<|sid_begin|>',
  '<|sid_end|>',
  '<|rerank|>',
  '<|nothing|>',
  '<s_a_0>',
  '<s_b_3>',
  '<s_a_03>',
  '<s_c_9>',
  '<0x41>',
  '<s>',
  '</s>',
  '<pad>',
  '<unk>',
  '{"explanation": "',
  '", "recommendations": ["',
  '", "',
  '"]}',
  '\u2581',
  '\u2585',
  '\u2047',
  ' ',
  '  ',
  '\n',
  '\x00',
  'Story',
]


@pytest.fixture(scope='module')
def vocab():
  return vocab_lib.Vocab.train(LINES, 320, levels=3, codes=8)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
  parts=st.lists(st.one_of(st.sampled_from(LOOK_ALIKES), st.text()))
)
@pytest.mark.parametrize('added', ['all', 'sids', 'none'])
def test_every_text_round_trips(vocab, added, parts):
  text = ''.join(parts)
  ids = vocab.encode(text, added=added)
  assert vocab.decode(ids) == text
  assert pieces.UNK not in ids
  assert not {vocab.pad, vocab.bos, vocab.eos} & set(ids)


def test_added_tokens_are_one_token_each(vocab):
  for name in ('<|sid_begin|>', '<|rerank|>', '", "', '<s_c_7>'):
    assert vocab.encode(name) == [vocab.token(name)]
  assert len(vocab.encode('<s_c_8>')) > 1, 'C is 8: there is no such code'
  assert len(vocab.encode('<s_d_0>')) > 1, 'L is 3: there is no such level'


def test_only_what_is_asked_for_is_recognised(vocab):
  text = 'x<|rerank|><s_a_1>'
  added = [i for i in vocab.encode(text, added='sids') if i >= vocab.text_size]
  assert added == [vocab.token('<s_a_1>')]
  assert max(vocab.encode(text, added='none')) < vocab.text_size


def test_layout(vocab):
  assert vocab.text_size == 320
  assert vocab.sid_begin == 320 and vocab.sid_end == 321
  fmt = vocab.answer_format()
  delimiters = fmt.open, fmt.top, fmt.mid, fmt.sep, fmt.close
  assert delimiters == (322, 323, 324, 325, 326)
  assert (fmt.sid_begin, fmt.sid_end) == (320, 321)
  assert set(range(327, vocab.sid_offset)) <= set(fmt.unsafe)
  roles = len(vocab_lib.TASKS) + len(vocab_lib.ROLES)
  assert vocab.sid_offset == 327 + roles == vocab.token('<s_a_0>')
  assert vocab.size % 64 == 0
  assert vocab.size - 64 < vocab.sid_offset + 3 * 8 <= vocab.size
  assert vocab.decode([vocab.size - 1, vocab.pad, vocab.bos, vocab.eos]) == ''


def test_sid_tokens_are_the_tokens_of_the_text(vocab):
  sids = np.array([[[0, 0, 0], [7, 1, 2]]])
  tokens = vocab.sid_tokens(sids)
  assert tokens.shape == (1, 2, 3) and tokens.dtype == np.int32
  text = semantic_ids.wrap(semantic_ids.write(sids[0, 1]))
  assert text == '<|sid_begin|><s_a_7><s_b_1><s_c_2><|sid_end|>'
  wrapped = [vocab.sid_begin, *tokens[0, 1], vocab.sid_end]
  assert vocab.encode(text) == wrapped


def test_wrong_codes_and_levels_are_named(vocab):
  with pytest.raises(ValueError, match='8 codes a level'):
    vocab.sid_tokens(np.array([[0, 8, 0]]))
  with pytest.raises(ValueError, match='3 levels'):
    vocab.sid_tokens(np.array([[0, 1, 0, 0]]))
  with pytest.raises(ValueError, match='27 levels'):
    vocab_lib.Vocab(vocab._pieces, 27, 4)
  with pytest.raises(ValueError, match='outside'):
    vocab.decode([vocab.size])
  with pytest.raises(ValueError, match='surrogate'):
    vocab.encode('\ud800')
  with pytest.raises(KeyError, match='nothing'):
    vocab.token('<|nothing|>')


def test_training_is_deterministic_and_quiet(vocab, capfd):
  again = vocab_lib.Vocab.train(LINES, 320, levels=3, codes=8)
  assert again._pieces.model == vocab._pieces.model
  captured = capfd.readouterr()
  assert captured.out == '' and captured.err == ''


def test_a_size_below_the_characters_is_refused(capfd):
  with pytest.raises(ValueError, match='raise text_size'):
    vocab_lib.Vocab.train(['ab'], 50, levels=1, codes=2)


def test_a_small_corpus_has_fewer_pieces(capfd):
  found = vocab_lib.Vocab.train(['ab ab', 'abc'], 3000, levels=1, codes=2)
  # Control ids, bytes and characters, and some pieces of these.
  assert 260 < found.text_size < 300
  assert found.decode(found.encode('abc ab')) == 'abc ab'
  captured = capfd.readouterr()
  assert captured.out == '' and captured.err == ''


@pytest.mark.parametrize('name', ['codes', 'min_rows'])
def test_rows_that_would_fill_the_memory_are_refused(vocab, tmp_path, name):
  vocab.save(tmp_path)
  meta = json.loads((tmp_path / 'vocab.json').read_text())
  (tmp_path / 'vocab.json').write_text(json.dumps({**meta, name: 10**30}))
  with pytest.raises(ValueError, match='not of this version .*rows for tokens'):
    vocab_lib.Vocab.load(tmp_path)


@pytest.mark.parametrize('delimiters', [None, True, [], {'x': 1}])
def test_other_delimiters_are_refused(vocab, tmp_path, delimiters):
  vocab.save(tmp_path)
  meta = json.loads((tmp_path / 'vocab.json').read_text())
  meta['delimiters'] = delimiters
  (tmp_path / 'vocab.json').write_text(json.dumps(meta))
  with pytest.raises(ValueError, match='has the delimiters'):
    vocab_lib.Vocab.load(tmp_path)


def test_save_and_load(vocab, tmp_path):
  vocab.save(tmp_path / 'vocab')
  loaded = vocab_lib.Vocab.load(tmp_path / 'vocab')
  text = 'Toy Story <s_b_4> "quoted"\n'
  assert loaded.encode(text) == vocab.encode(text)
  assert loaded.answer_format() == vocab.answer_format()
  assert (loaded.size, loaded.levels, loaded.codes) == (vocab.size, 3, 8)


def test_bytes_that_form_no_character_become_replacements(vocab):
  ids = vocab.encode('\u2581')
  assert len(ids) == 3 and vocab.decode(ids[:2]) == '\ufffd'
