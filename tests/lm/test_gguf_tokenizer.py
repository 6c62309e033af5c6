"""Tokenizers of GGUF files: pieces, added tokens, round trips, errors."""

import gguf
import hypothesis
import pytest
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from gr2_jax.lm import gguf_tokenizer
from gr2_jax.lm.gguf_file import File
from gr2_jax.text.pretrained import Pretrained
from gr2_jax.text.vocab import Vocab

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = [*ALPHABET, 'Ġt', 'he', 'Ġthe', '12', '<|end|>', '<think>', '[PAD]']
KINDS = [1] * (len(TOKENS) - 3) + [3, 4, 5]
END, THINK = len(TOKENS) - 3, len(TOKENS) - 2
MERGES = ['Ġ t', 'h e', 'Ġt he', '1 2']
TEXTS = (
  'The theatre of the north.',
  "  two  spaces, it's\n\nlines\t\tand tabs ",
  'digits 1234567 and a12b',
  'Ünïcödé, 漢字, 🙂 and \x00\x7f',
)


def write(path, pre='gpt-2', **changes):
  """Writes a tokenizer; a change to None leaves an entry out."""
  values = {
    'model': 'gpt2',
    'pre': pre,
    'tokens': TOKENS,
    'token_type': KINDS,
    'merges': MERGES,
  } | changes
  writer = gguf.GGUFWriter(path, 'llama')
  for name, value in values.items():
    key = f'tokenizer.ggml.{name}'
    if isinstance(value, str):
      writer.add_string(key, value)
    elif isinstance(value, bool):
      writer.add_bool(key, value)
    elif isinstance(value, int):
      writer.add_uint32(key, value)
    elif value is not None:
      writer.add_array(key, value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  return File(path)


def make(path, *args, **changes):
  return gguf_tokenizer.build(write(path, *args, **changes), len(TOKENS))


def pieces(tokenizer, text):
  return [p for p, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize(
  'pre', ['default', 'gpt-2', 'smollm', 'qwen2', 'llama-bpe']
)
def test_round_trip(tmp_path, pre):
  tokenizer = make(tmp_path / 'a', pre, add_bos_token=False)
  assert tokenizer.get_vocab_size() == len(TOKENS)
  for text in TEXTS:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert max(ids) < END
  ids = tokenizer.encode(' the').ids
  assert ids == [TOKENS.index('Ġthe')]


def test_pieces_of_the_patterns(tmp_path):
  digits = 'in 1234 or 56'
  for pre, want in (
    ('gpt-2', ['in', 'Ġ1234', 'Ġor', 'Ġ56']),
    ('default', ['in', 'Ġ', '123', '4', 'Ġor', 'Ġ', '56']),
    ('smollm', ['in', 'Ġ', '1', '2', '3', '4', 'Ġor', 'Ġ', '5', '6']),
    ('qwen2', ['in', 'Ġ', '1', '2', '3', '4', 'Ġor', 'Ġ', '5', '6']),
    ('llama-bpe', ['in', 'Ġ', '123', '4', 'Ġor', 'Ġ', '56']),
  ):
    assert pieces(make(tmp_path / pre, pre, add_bos_token=False), digits) == (
      want
    ), pre
  marks = "I'LL (go)\n\n  now"
  for pre, want in (
    ('gpt-2', ['I', "'", 'LL', 'Ġ(', 'go', ')', 'ĊĊĠ', 'Ġnow']),
    ('default', ['I', "'", 'LL', 'Ġ', '(', 'go', ')', 'ĊĊĠ', 'Ġnow']),
    ('smollm', ['I', "'", 'LL', 'Ġ(', 'go', ')', 'ĊĊĠ', 'Ġnow']),
    ('qwen2', ['I', "'LL", 'Ġ(', 'go', ')ĊĊ', 'Ġ', 'Ġnow']),
    ('llama-bpe', ['I', "'LL", 'Ġ(', 'go', ')ĊĊ', 'Ġ', 'Ġnow']),
  ):
    assert pieces(make(tmp_path / pre, pre, add_bos_token=False), marks) == (
      want
    ), pre


def test_smollm_cuts_as_its_own_tokenizer_does(tmp_path):
  """HuggingFaceTB/SmolLM2: single digits, then GPT-2's pattern."""
  own = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
  )
  tokenizer = make(tmp_path / 'a', 'smollm')
  for text in (*TEXTS, 'x² + ½ = 3,141.5', '٣ or Ⅷ'):
    assert pieces(tokenizer, text) == [p for p, _ in own.pre_tokenize_str(text)]
  assert tokenizer.encode('12').tokens == ['1', '2']
  assert make(tmp_path / 'b').encode('12').tokens == ['12']


def test_qwen2_composes_characters(tmp_path):
  tokenizer = make(tmp_path / 'a', 'qwen2')
  assert tokenizer.encode('e\u0301').ids == tokenizer.encode('\u00e9').ids
  tokenizer = make(tmp_path / 'b', 'smollm')
  assert tokenizer.encode('e\u0301').ids != tokenizer.encode('\u00e9').ids


def test_llama_takes_whole_words_unmerged(tmp_path):
  tokens = [*TOKENS[:-1], 'xyz']
  changes = dict(tokens=tokens, token_type=[*KINDS[:-1], 1])
  whole = make(tmp_path / 'a', 'llama-bpe', add_bos_token=False, **changes)
  assert whole.encode('xyz').tokens == ['xyz']
  assert make(tmp_path / 'b', **changes).encode('xyz').tokens == list('xyz')


def test_added_tokens(tmp_path):
  tokenizer = make(tmp_path / 'a')
  ids = tokenizer.encode('the<think> the<|end|>').ids
  assert [ids[-1], ids[-3]] == [END, THINK]
  assert tokenizer.decode(ids) == 'the<think> the'
  assert tokenizer.decode(ids, skip_special_tokens=False) == (
    'the<think> the<|end|>'
  )
  assert len(tokenizer.encode('[PAD]').ids) == 5
  assert tokenizer.token_to_id('[PAD]') == len(TOKENS) - 1


def test_begin_and_end_tokens(tmp_path):
  changes = dict(bos_token_id=END, eos_token_id=THINK)
  plain = make(tmp_path / 'a', **changes).encode('the').ids
  for pre, adds, want in (
    ('gpt-2', dict(add_bos_token=True), [END, *plain]),
    ('gpt-2', dict(add_eos_token=True), [*plain, THINK]),
    ('llama-bpe', dict(add_eos_token=True), [END, *plain, THINK]),
    ('llama-bpe', {}, [END, *plain]),
    ('llama-bpe', dict(add_bos_token=False), plain),
  ):
    tokenizer = make(tmp_path / 'b', pre, **changes, **adds)
    assert tokenizer.encode('the').ids == want
    assert tokenizer.encode('the', add_special_tokens=False).ids == plain


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(model='llama'), "tokenizer.ggml.model is 'llama', SentencePiece"),
    (dict(model='bert'), "tokenizer.ggml.model is 'bert'; only 'gpt2'"),
    (dict(pre='tekken'), "tokenizer.ggml.pre is 'tekken'; the known"),
    (dict(pre=None), 'has no tokenizer.ggml.pre'),
    (dict(token_type=None), 'has no tokenizer.ggml.token_type'),
    (dict(merges=None), 'has no tokenizer.ggml.merges'),
    (dict(tokens=TOKENS[1:]), f'{len(TOKENS) - 1} tokens and'),
    (dict(tokens=[*TOKENS[:-1], 'he']), "'he' has the ids 257 and 262"),
    (dict(token_type=[*KINDS[:-1], 6]), "'.PAD.' is of type 6"),
    (dict(merges=['x y']), r"merge 'x y' needs the tokens \['xy'\]"),
    (dict(merges=['he']), "merge 'he' needs the tokens"),
    (dict(add_space_prefix=True), 'add_space_prefix = True'),
    (dict(add_bos_token=True), 'has no tokenizer.ggml.bos_token_id'),
    (
      dict(add_eos_token=True, eos_token_id=999),
      'eos_token_id is 999, but there are 263 tokens',
    ),
  ],
)
def test_errors(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    make(tmp_path / 'a', **changes)


def test_bytes_that_are_lost_are_listed(tmp_path, caplog):
  tokens = [*TOKENS[1:-1], '[PAD]', '[PAD1]']
  make(tmp_path / 'a', tokens=tokens, token_type=[*KINDS[1:], 5])
  assert f'lacks the byte tokens {ALPHABET[0]}:' in caplog.text


@hypothesis.settings(
  deadline=None,
  max_examples=60,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
@pytest.mark.parametrize(
  'pre', ['default', 'gpt-2', 'smollm', 'qwen2', 'llama-bpe']
)
def test_no_title_forges_a_token(tmp_path, data, pre):
  """As text pieces a tokenizer does not find its own tokens in a text."""
  if not (tmp_path / 'a').exists():
    write(tmp_path / 'a', pre, bos_token_id=END)
  own = gguf_tokenizer.build(File(tmp_path / 'a'), len(TOKENS))
  vocab = Vocab.pretrained(Pretrained(own, '<|end|>', '<|end|>'), 2, 4)
  spelled = [*TOKENS[END:], '<|sid_end|>', '<s_a_1>', '"]}', '<|', 'end', '|>']
  part = st.one_of(st.sampled_from(spelled), st.text(max_size=4))
  title = ''.join(data.draw(st.lists(part)))
  ids = vocab.encode(title, added='none')
  assert max(ids, default=0) < END
