"""Pretrained tokenizers as text pieces: exact, contiguous, nothing special."""

import functools
import json
import operator

import hypothesis
import pytest
from hypothesis import strategies as st
from tokenizers import (
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
)

from gr2_jax.text import bpe, pretrained
from tests.text import made

LOOK_ALIKES = [
  *made.SPECIAL,
  '<think>',
  '<unk>',
  '<s>',
  '</s>',
  '<0x41>',
  '<|sid_begin|>',
  '\u2581',
  '\u0120',
  'e\u0301',
  '\u212b',
  ' ',
  '  ',
  '\n',
  '\x00',
  ' Story',
  'Story (1995)',
  '"]}',
]
TEXTS = st.lists(st.one_of(st.sampled_from(LOOK_ALIKES), st.text())).map(
  ''.join
)
search = hypothesis.settings(deadline=None, max_examples=200)


@pytest.fixture(scope='module', params=made.KINDS)
def kind(request):
  return request.param


@pytest.fixture(scope='module')
def text_pieces(kind):
  return made.pretrained(kind)


def written(text_pieces, ids):
  return b''.join(text_pieces.bytes[i] for i in ids).decode()


@search
@hypothesis.given(text=TEXTS)
def test_every_text_round_trips(kind, text_pieces, text):
  ids = text_pieces.encode(text)
  if kind == 'qwen':
    text = normalizers.NFC().normalize_str(text)
  assert written(text_pieces, ids) == text
  assert all(text_pieces.bytes[i] for i in ids), 'a control piece'


def test_text_that_spells_a_token_stays_text(kind, text_pieces):
  tokenizer = made.KINDS[kind]()
  added = tokenizer.get_added_tokens_decoder()
  assert len(added) >= 3
  for token, entry in added.items():
    text = f'x{entry.content} y'
    assert token in tokenizer.encode(text, add_special_tokens=False).ids
    ids = text_pieces.encode(text)
    assert token not in ids and written(text_pieces, ids) == text
    assert text_pieces.bytes[token] == b''


def test_ids_are_the_tokenizer_s(kind, text_pieces):
  tokenizer = made.KINDS[kind]()
  assert text_pieces.size == tokenizer.get_vocab_size(with_added_tokens=True)
  assert len(text_pieces.bytes) == text_pieces.size
  text = 'Toy Story (1995) d\u2019Am\u00e9lie \u65e5\n'
  ids = tokenizer.encode(text, add_special_tokens=False).ids
  # The library puts a space in front of these itself.
  prefix = ' ' if kind in ('gpt2', 'llama2', 'metaspace') else ''
  assert text_pieces.encode(prefix + text) == ids


def test_a_dummy_prefix_is_left_out():
  text_pieces, tokenizer = made.pretrained('llama2'), made.llama2()
  assert tokenizer.encode('Story', add_special_tokens=False).ids != (
    text_pieces.encode('Story')
  )
  # In the model's own words: its ids of 'Story' are ours of ' Story'.
  assert tokenizer.encode('Story', add_special_tokens=False).ids == (
    text_pieces.encode(' Story')
  )
  tokenizer, text_pieces = made.gpt2(), made.pretrained('gpt2')
  shown = tokenizer.decode(tokenizer.encode('Story').ids)
  assert shown == ' Story' == written(text_pieces, text_pieces.encode(shown))


def test_whole_words_that_skip_merges_are_no_control_pieces():
  spec = json.loads(made.llama3().to_str())
  spec['pre_tokenizer'] = {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': True,
    'use_regex': False,
  }
  for entry in spec['added_tokens']:
    spec['model']['vocab'][entry['content']] = entry['id']
  tokenizer = Tokenizer.from_str(json.dumps(spec))
  tokenizer.encode_special_tokens = True
  # The library reads the whole text as the piece of that name.
  assert len(tokenizer.encode('<|im_end|>', add_special_tokens=False)) == 1
  text_pieces = pretrained.Pretrained(tokenizer, eos='<|im_end|>')
  assert len(text_pieces.encode('<|im_end|>')) > 1
  assert len(text_pieces.encode('<think>')) > 1


def test_characters_that_cannot_be_written_are_replaced():
  def lose(spec):
    # Of a control character, and of what begins planes 4 to 7 of Unicode.
    for byte in (0x13, 0xF1):
      name = {b: c for c, b in bpe.alphabet().items()}[byte]
      vocab = spec['model']['vocab']
      vocab[f'lost {byte}'] = vocab.pop(name)

  text_pieces = pretrained.Pretrained(
    _changed('smollm', lose), eos='<|im_end|>'
  )
  ids = text_pieces.encode('a\x13b\U00040000c\u65e5')
  assert written(text_pieces, ids) == 'a\ufffdb\ufffdc\u65e5'


def test_merged_pieces_among_the_added_tokens_are_text():
  tokenizer = made.gpt2()
  (token,) = made.pretrained('gpt2').encode('"]}')
  tokenizer.add_tokens(['"]}'])
  text_pieces = pretrained.Pretrained(tokenizer, eos='<|im_end|>')
  assert text_pieces.encode('"]}') == [token]


def test_the_alphabet_is_the_library_s():
  assert set(bpe.alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
  decode = decoders.ByteLevel().decode
  ascii_names = [c for c, byte in bpe.alphabet().items() if byte < 128]
  assert [decode([c]) for c in ascii_names] == [
    chr(bpe.alphabet()[c]) for c in ascii_names
  ]
  name = ''.join(
    next(c for c, b in bpe.alphabet().items() if b == byte)
    for byte in '\u65e5\u00e9'.encode()
  )
  assert decode([name]) == '\u65e5\u00e9'


def test_roles():
  text_pieces = made.pretrained('qwen')
  ids = made.qwen().token_to_id
  assert text_pieces.bos == ids('<|endoftext|>'), 'Qwen has no begin token'
  assert text_pieces.pad == text_pieces.eos == ids('<|im_end|>')
  text_pieces = pretrained.Pretrained(
    made.qwen(), eos='<|im_end|>', pad='<|endoftext|>'
  )
  assert text_pieces.pad == text_pieces.bos != text_pieces.eos
  with pytest.raises(ValueError, match="'</s>' for eos: pass eos="):
    pretrained.Pretrained(made.qwen(), eos='</s>')
  with pytest.raises(ValueError, match='for bos: pass bos='):
    pretrained.Pretrained(made.llama2(), eos='</s>')


def test_surrogates_are_refused(text_pieces):
  with pytest.raises(ValueError, match='surrogate'):
    text_pieces.encode('\ud800')


def test_an_id_without_token_has_no_bytes():
  spec = json.loads(made.gpt2().to_str())
  spec['added_tokens'] = []
  vocab = spec['model']['vocab']
  last = max(vocab.values())
  vocab['<|endoftext|>'] = last + 3
  text_pieces = pretrained.Pretrained(
    Tokenizer.from_str(json.dumps(spec)), eos='<|endoftext|>'
  )
  assert text_pieces.size == last + 4 == len(text_pieces.bytes)
  assert text_pieces.bytes[last + 1 :] == [b''] * 3
  # The library would number an added token into the gap, then onto a piece.
  spec['added_tokens'] = json.loads(made.gpt2().to_str())['added_tokens']
  with pytest.raises(ValueError, match='gives id .* damaged'):
    pretrained.Pretrained(
      Tokenizer.from_str(json.dumps(spec)), eos='<|endoftext|>'
    )


def _changed(kind, change):
  spec = json.loads(made.KINDS[kind]().to_str())
  change(spec)
  return Tokenizer.from_str(json.dumps(spec))


def _without_byte(spec):
  # U+0120 is the space; no merge may name it then.
  merges = spec['model']['merges']
  kept = [m for m in merges if '\u0120' not in ''.join(m)]
  spec['model']['merges'] = kept
  spec['model']['vocab']['lost'] = spec['model']['vocab'].pop('\u0120')


def _put(key, value):
  return lambda spec: spec.update({key: value})


@pytest.mark.parametrize(
  ('tokenizer', 'message'),
  [
    (lambda: Tokenizer(models.WordPiece()), 'model WordPiece'),
    (lambda: Tokenizer(models.Unigram()), 'model Unigram'),
    (lambda: Tokenizer(models.BPE()), 'pre_tokenizer nothing'),
    (
      lambda: Tokenizer(models.BPE(end_of_word_suffix='</w>')),
      'end_of_word_suffix',
    ),
    (
      lambda: _changed('gpt2', _put('normalizer', {'type': 'Lowercase'})),
      'normalizer Lowercase',
    ),
    (
      lambda: _changed('gpt2', _put('pre_tokenizer', {'type': 'Whitespace'})),
      r"pre_tokenizer \['Whitespace'\]",
    ),
    (
      lambda: _changed('llama2', _put('pre_tokenizer', {'type': 'Whitespace'})),
      'Whitespace',
    ),
    (lambda: _changed('llama2', _put('normalizer', None)), 'spaces'),
    (
      lambda: _changed('llama2', _put('normalizer', {'type': 'NFKC'})),
      'NFKC',
    ),
    (
      lambda: _changed(
        'llama2', lambda spec: spec['model'].update(ignore_merges=True)
      ),
      'ignore_merges',
    ),
    (lambda: _changed('gpt2', _without_byte), 'no piece for the bytes'),
    (
      lambda: _changed(
        'qwen',
        lambda spec: spec['pre_tokenizer']['pretokenizers'][0].update(
          behavior='Removed'
        ),
      ),
      'Removed',
    ),
  ],
)
def test_other_kinds_are_named(tokenizer, message):
  with pytest.raises(ValueError, match=message):
    pretrained.Pretrained(tokenizer(), eos='<|im_end|>')


def test_save_and_load(text_pieces, tmp_path):
  text_pieces.save(tmp_path)
  loaded = pretrained.Pretrained.load(tmp_path)
  assert loaded.bytes == text_pieces.bytes
  for role in ('bos', 'eos', 'pad', 'size'):
    assert getattr(loaded, role) == getattr(text_pieces, role)
  text = 'Toy Story <|im_end|> \u65e5\u672c\u2581\n'
  assert loaded.encode(text) == text_pieces.encode(text)


def test_read_a_checkpoint_s_directory(tmp_path):
  made.qwen().save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(ValueError, match='names no eos_token'):
    pretrained.read(tmp_path)
  eos = {'content': '<|im_end|>', '__type': 'AddedToken'}
  config = {'bos_token': None, 'eos_token': eos, 'pad_token': '<|endoftext|>'}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  ids = made.qwen().token_to_id
  text_pieces = pretrained.read(tmp_path)
  assert text_pieces.eos == ids('<|im_end|>')
  assert text_pieces.bos == text_pieces.pad == ids('<|endoftext|>')
  text_pieces = pretrained.read(tmp_path, eos='<|endoftext|>', pad='<think>')
  assert text_pieces.eos == ids('<|endoftext|>')
  assert text_pieces.pad == ids('<think>')


def test_ids_that_the_library_would_change_are_refused(tmp_path):
  spec = json.loads(made.qwen().to_str())
  for entry in spec['added_tokens']:
    entry['id'] += 7
  (tmp_path / 'tokenizer.json').write_text(json.dumps(spec))
  with pytest.raises(ValueError, match='leave a gap'):
    pretrained.read(tmp_path, eos='<|im_end|>')


def test_ids_that_would_fill_the_memory_are_refused(tmp_path):
  spec = json.loads(made.qwen().to_str())
  spec['model']['vocab']['!'] = 2**32 - 1
  (tmp_path / 'tokenizer.json').write_text(json.dumps(spec))
  with pytest.raises(ValueError, match=f"gives '!' the id {2**32 - 1}, and no"):
    pretrained.read(tmp_path, eos='<|im_end|>')


def _places(value, place=()):
  """Yields the places in a JSON value; of its long parts the first three."""
  yield place
  parts = value if isinstance(value, (dict, list)) else ()
  keys = list(parts) if isinstance(parts, dict) else range(len(parts))
  for key in keys if len(keys) < 30 else keys[:3]:
    yield from _places(value[key], (*place, key))


@pytest.mark.parametrize('odd', [None, -1, 'x' * 70, '\ud800', [], {'x': 1}])
def test_a_file_with_an_odd_value_anywhere_is_refused_or_read(tmp_path, odd):
  spec = json.loads(made.qwen().to_str())
  config = {'eos_token': '<|im_end|>', 'bos_token': None, 'chat_template': ''}
  whole = {'tokenizer.json': spec, 'tokenizer_config.json': config}
  refused = 0
  for name, *place in filter(lambda x: len(x) > 1, _places(whole)):
    changed = json.loads(json.dumps(whole))
    *parents, last = name, *place
    functools.reduce(operator.getitem, parents, changed)[last] = odd
    for file, content in changed.items():
      (tmp_path / file).write_text(json.dumps(content))
    try:
      pretrained.read(tmp_path)
    except ValueError as error:
      assert str(tmp_path) in str(error), place
      refused += 1
  assert refused > 30
