"""A vocabulary on a pretrained tokenizer: layout, answers and export."""

import json
import pathlib

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from gr2_jax import files
from gr2_jax.decode import constrain
from gr2_jax.rl import parse
from gr2_jax.text import encoding, semantic_ids
from gr2_jax.text import vocab as vocab_lib
from tests.text import made

SIDS = np.array([[3, 1], [0, 2], [3, 0]])
LOOK_ALIKES = [
  *vocab_lib.DELIMITERS,
  *made.SPECIAL,
  '</s>',
  '<think>',
  '<|rerank|>',
  '<|sid_begin|>',
  '<s_a_1>',
  '<s_b_9>',
  '"',
  '\\',
  '<\u0338',
  ' Story',
]
TEXTS = st.lists(st.one_of(st.sampled_from(LOOK_ALIKES), st.text())).map(
  ''.join
)
search = hypothesis.settings(deadline=None, max_examples=100)
read = jax.jit(parse.parse_ranking, static_argnames='fmt')


@pytest.fixture(scope='module', params=made.KINDS)
def kind(request):
  return request.param


@pytest.fixture(scope='module')
def vocab(kind):
  return vocab_lib.Vocab.pretrained(made.pretrained(kind), levels=2, codes=4)


@pytest.fixture(scope='module')
def exported(vocab, tmp_path_factory):
  """The tokenizer, by way of its file."""
  directory = tmp_path_factory.mktemp('exported')
  vocab.export(directory)
  return Tokenizer.from_file(str(directory / 'tokenizer.json'))


def form(kind, text):
  return normalizers.NFC().normalize_str(text) if kind == 'qwen' else text


def test_added_tokens_follow_the_tokenizer_s_own(kind, vocab):
  tokenizer = made.KINDS[kind]()
  first = tokenizer.get_vocab_size(with_added_tokens=True)
  assert vocab.text_size == first == vocab.sid_begin
  assert vocab.sid_offset == vocab.token('<s_a_0>') == first + 16
  assert vocab.size % 64 == 0 and 0 <= vocab.size - (first + 15 + 8) < 64
  end = '<|im_end|>' if kind in made.BYTE_LEVEL else '</s>'
  assert vocab.eos == vocab.pad == tokenizer.token_to_id(end)
  assert vocab.decode([vocab.bos, vocab.eos, vocab.size - 1]) == ''


def test_no_row_of_the_checkpoint_is_lost(tmp_path):
  vocab = vocab_lib.Vocab.pretrained(made.pretrained('qwen'), 2, 4, 1000)
  assert vocab.size == 1024
  vocab.save(tmp_path)
  assert vocab_lib.Vocab.load(tmp_path).size == 1024


@search
@hypothesis.given(text=TEXTS)
@pytest.mark.parametrize('added', ['all', 'sids', 'none'])
def test_every_text_round_trips(kind, vocab, added, text):
  ids = vocab.encode(text, added)
  # Normal forms of the parts are not those of the whole: '<' U+0338.
  if kind != 'qwen' or added == 'none':
    assert vocab.decode(ids) == form(kind, text)
  control = {i for i, b in enumerate(vocab._pieces.bytes) if not b}
  assert control.isdisjoint(ids)


def test_save_and_load(vocab, tmp_path):
  vocab.save(tmp_path / 'vocab')
  loaded = vocab_lib.Vocab.load(tmp_path / 'vocab')
  text = 'Toy Story <s_b_3> "quoted" <|im_end|>\n'
  assert loaded.encode(text) == vocab.encode(text)
  assert loaded.answer_format() == vocab.answer_format()
  assert (loaded.size, loaded.bos) == (vocab.size, vocab.bos)


@search
@hypothesis.given(
  explanation=TEXTS,
  sids=st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5
  ),
)
def test_every_explanation_gives_valid_json(kind, vocab, explanation, sids):
  tokens, _ = encoding.encode_answer(vocab, explanation, np.array(sids))
  value = json.loads(vocab.decode(tokens))
  if kind != 'qwen':
    closed = encoding.close_explanation(explanation, np.array(sids[0]))
    assert value['explanation'] == closed
  assert value['recommendations'] == [*map(semantic_ids.write, sids)]
  fmt = vocab.answer_format()
  for delimiter in (fmt.open, fmt.top, fmt.mid, fmt.close, fmt.eos):
    assert tokens.count(delimiter) == 1
  assert not set(fmt.unsafe) & set(tokens[:-1])


@search
@hypothesis.given(data=st.data())
def test_explanations_of_safe_tokens_are_valid_json(vocab, data):
  fmt = vocab.answer_format()
  safe = np.flatnonzero(~constrain.banned(fmt, vocab.size)).tolist()
  explanation = data.draw(st.lists(st.sampled_from(safe)))
  tokens = [fmt.open, *explanation, fmt.mid, fmt.sid_offset, fmt.close]
  assert json.loads(vocab.decode(tokens))['recommendations'] == ['<s_a_0>']


def test_control_pieces_are_banned_from_explanations(kind, vocab):
  fmt = vocab.answer_format()
  table = constrain.banned(fmt, vocab.size)
  for token in made.KINDS[kind]().get_added_tokens_decoder():
    assert token in fmt.unsafe and table[token]
  for token in vocab.encode(' Story (1995) \u65e5'):
    assert not table[token]


def test_answers_are_read_where_padding_is_the_end_token(vocab):
  fmt = vocab.answer_format()
  assert fmt.pad == fmt.eos
  tokens, _ = encoding.encode_answer(vocab, 'so it is', SIDS[[2, 0, 1]])
  special = [*tokens[:1], vocab.bos, *tokens[1:]]
  rows = np.full((3, 48), fmt.pad, np.int32)
  # The last one has no end: what follows it is padding and reads like one.
  for row, ids in zip(rows, [tokens, special, tokens[:-1]], strict=True):
    row[: len(ids)] = ids
  lengths = np.array([len(tokens), len(special), len(tokens) - 1])
  mask = np.arange(48)[None] < lengths[:, None]
  places, valid = read(rows, SIDS[None], fmt=fmt, mask=mask)
  np.testing.assert_array_equal(places, [[1, 2, 0]] * 3)
  np.testing.assert_array_equal(valid, [True, False, False])


@search
@hypothesis.given(text=TEXTS)
def test_the_exported_tokenizer_gives_the_same_ids(kind, vocab, exported, text):
  # What the library reads otherwise: see `Vocab.export`.
  for name in (*made.SPECIAL, '</s>', '<s>', '<unk>', '<think>', '\u2581'):
    text = text.replace(name, '')
  ids = exported.encode(text, add_special_tokens=False).ids
  assert ids == vocab.encode(text)
  if '"]}' not in text:
    assert exported.decode(ids) == vocab.decode(ids)


def test_the_exported_tokenizer_knows_all_tokens(kind, vocab, exported):
  for name in ('<s_a_3>', '<|rerank|>', *vocab_lib.DELIMITERS):
    assert exported.encode(name, add_special_tokens=False).ids == [
      vocab.token(name)
    ]
  used = vocab.sid_offset + 8
  assert sorted(exported.get_vocab().values()) == list(range(used))
  base = made.KINDS[kind]()
  for token, entry in base.get_added_tokens_decoder().items():
    assert exported.token_to_id(entry.content) == token
    assert exported.get_added_tokens_decoder()[token].special == entry.special
  tokens, _ = encoding.encode_answer(vocab, ' so it is', SIDS)
  text = exported.decode(tokens, skip_special_tokens=True)
  assert json.loads(text) == json.loads(vocab.decode(tokens))


def test_a_piece_with_the_name_of_a_delimiter_keeps_its_id():
  vocab = vocab_lib.Vocab.pretrained(made.pretrained('gpt2'), 2, 4)
  (piece,) = vocab.encode('"]}', added='none')
  assert piece == made.gpt2().token_to_id('"]}') < vocab.text_size
  assert vocab.encode('"]}') == [vocab.token('"]}')] != [piece]
  exported = vocab.tokenizer()
  assert exported.token_to_id('"]}') == vocab.token('"]}')
  assert exported.id_to_token(piece) == f'<|gr2_unused_{piece}|>'


def test_the_config_of_the_export(tmp_path):
  (tmp_path / 'source').mkdir()
  source = tmp_path / 'source'
  made.qwen().save(str(source / 'tokenizer.json'))
  config = {'eos_token': '<|im_end|>', 'chat_template': 'old'}
  (source / 'tokenizer_config.json').write_text(json.dumps(config))
  (source / 'chat_template.jinja').write_text('{{ messages }}')
  text_pieces = vocab_lib.pretrained_lib.read(source)
  vocab = vocab_lib.Vocab.pretrained(text_pieces, 2, 4)
  vocab.save(tmp_path / 'vocab')
  vocab_lib.Vocab.load(tmp_path / 'vocab').export(tmp_path / 'model')
  path = tmp_path / 'model' / 'tokenizer_config.json'
  assert json.loads(path.read_text()) == {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'bos_token': '<|endoftext|>',
    'eos_token': '<|im_end|>',
    'pad_token': '<|im_end|>',
    'clean_up_tokenization_spaces': False,
    'chat_template': '{{ messages }}',
  }


def test_an_exported_tokenizer_can_be_built_on(vocab, tmp_path):
  """A second run may start from the model of a first one."""
  vocab.export(tmp_path)
  text_pieces = vocab_lib.pretrained_lib.read(tmp_path)
  again = vocab_lib.Vocab.pretrained(text_pieces, 2, 4)
  text = ' Story <s_a_3> <|rerank|> "]}'
  ids = again.encode(text)
  assert again.decode(ids) == text
  shift = vocab.sid_offset + 8 - vocab.text_size
  assert ids == [
    i + shift if i >= vocab.text_size else i for i in vocab.encode(text)
  ]
  assert again.decode(again.encode(text, added='none')) == text
  assert again.tokenizer().encode(text, add_special_tokens=False).ids == ids


def test_directories_of_other_versions_and_no_export(tmp_path):
  vocab = vocab_lib.Vocab.train(made.LINES, 320, levels=2, codes=4)
  vocab.save(tmp_path)
  path = pathlib.Path(tmp_path / 'vocab.json')
  loaded = vocab_lib.Vocab.load(tmp_path)
  assert loaded.encode('Toy <s_a_0>') == vocab.encode('Toy <s_a_0>')
  meta = files.read_json(path)
  # Before answers named their first item, the ids behind it were others.
  for found in (None, [x for x in meta['delimiters'] if x != ' First: ']):
    files.write_json(path, {**meta, 'delimiters': found})
    with pytest.raises(ValueError, match='First: .*train the run again'):
      vocab_lib.Vocab.load(tmp_path)
  files.write_json(path, {**meta, 'text': 'words'})
  with pytest.raises(ValueError, match="'words' text pieces"):
    vocab_lib.Vocab.load(tmp_path)
  for use in (loaded.tokenizer, lambda: loaded.export(tmp_path)):
    with pytest.raises(ValueError, match='lm.pretrained=MODEL'):
      use()


@pytest.mark.slow
@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize(
  ('kind', 'model_type'),
  [
    *((kind, None) for kind in made.KINDS),
    ('qwen', 'qwen3'),
    ('qwen', 'qwen2'),
    ('smollm', 'llama'),
    ('llama3', 'llama'),
    ('llama2', 'llama'),
    ('metaspace', 'llama'),
  ],
  indirect=['kind'],
)
def test_auto_tokenizer(kind, vocab, model_type, tmp_path):
  transformers = pytest.importorskip('transformers')
  vocab.export(tmp_path)
  if model_type:
    config = json.dumps({'model_type': model_type})
    (tmp_path / 'config.json').write_text(config)
  loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
  assert (loaded.eos_token_id, loaded.pad_token_id) == (vocab.eos, vocab.pad)
  assert loaded.bos_token_id == vocab.bos
  assert loaded.convert_tokens_to_ids('<s_a_3>') == vocab.token('<s_a_3>')
  tokens, _ = encoding.encode_answer(vocab, ' Story, (1995) . \u65e5', SIDS)
  for text in (
    vocab.decode(tokens),
    '<|rerank|> Toy Story <s_a_3><s_b_9> "]}\n  x',
    "Story  <s_a_0> don't .\t!",
  ):
    ids = loaded(text, add_special_tokens=False)['input_ids']
    assert ids == vocab.encode(text)
    assert loaded.decode(ids, skip_special_tokens=True) == text
