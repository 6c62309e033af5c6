"""The sentence encoder against a NumPy reference in float64."""

import json
import math

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from gr2_jax import assets
from gr2_jax.data import dataset
from gr2_jax.text import bert, encoder

WORDS = 'the a of star wars story toy heat lion king alien men black'.split()
TEXTS = [
  'toy story',
  'star wars',
  '',
  'the lion king ' * 8,
  'Heat',
  'men of the black star a story of the lion king',
]
SHAPE = {
  'vocab_size': len(WORDS) + 5,
  'hidden_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'max_position_embeddings': 40,
  'layer_norm_eps': 1e-12,
}


def reference(tensors, ids, heads, eps=1e-12):
  """BERT on one text without padding, as the paper writes it, in float64."""
  t = {name: np.asarray(x, np.float64) for name, x in tensors.items()}
  erf = np.vectorize(math.erf)

  def dense(name, x):
    return x @ t[f'{name}.weight'].T + t[f'{name}.bias']

  def norm(name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * t[f'{name}.weight'] + t[f'{name}.bias']

  x = np.stack(
    [
      t['embeddings.word_embeddings.weight'][token]
      + t['embeddings.position_embeddings.weight'][place]
      + t['embeddings.token_type_embeddings.weight'][0]
      for place, token in enumerate(ids)
    ]
  )
  x = norm('embeddings.LayerNorm', x)
  layer = 0
  while f'encoder.layer.{layer}.output.dense.weight' in t:
    name = f'encoder.layer.{layer}'
    q, k, v = (
      np.split(dense(f'{name}.attention.self.{part}', x), heads, axis=1)
      for part in ('query', 'key', 'value')
    )
    mixed = []
    for head in range(heads):
      scores = q[head] @ k[head].T / np.sqrt(q[head].shape[1])
      scores = np.exp(scores - scores.max(-1, keepdims=True))
      mixed.append(scores / scores.sum(-1, keepdims=True) @ v[head])
    mixed = dense(f'{name}.attention.output.dense', np.concatenate(mixed, 1))
    x = norm(f'{name}.attention.output.LayerNorm', x + mixed)
    inner = dense(f'{name}.intermediate.dense', x)
    inner = inner * 0.5 * (1 + erf(inner / np.sqrt(2)))
    x = norm(
      f'{name}.output.LayerNorm', x + dense(f'{name}.output.dense', inner)
    )
    layer += 1
  mean = x.mean(0)
  return mean / np.linalg.norm(mean)


def make_tokenizer():
  special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  vocab = {word: index for index, word in enumerate(special + WORDS)}
  tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token='[UNK]'))
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  tokenizer.add_special_tokens(special)
  # A file in the wild pads: `load` has to turn that off.
  tokenizer.enable_padding(length=32)
  return tokenizer


def make_tensors(rng):
  width, inner = SHAPE['hidden_size'], SHAPE['intermediate_size']
  tensors = {}

  def add(name, *shape):
    # Large enough that attention and GELU are far from linear.
    tensors[name] = rng.normal(0, 0.4, shape).astype(np.float32)

  add('embeddings.word_embeddings.weight', SHAPE['vocab_size'], width)
  add('embeddings.position_embeddings.weight', 40, width)
  add('embeddings.token_type_embeddings.weight', 2, width)
  names = {'embeddings.LayerNorm': ()}
  for layer in range(SHAPE['num_hidden_layers']):
    prefix = f'encoder.layer.{layer}'
    for part in ('self.query', 'self.key', 'self.value', 'output.dense'):
      names[f'{prefix}.attention.{part}'] = (width, width)
    names[f'{prefix}.attention.output.LayerNorm'] = ()
    names[f'{prefix}.intermediate.dense'] = (inner, width)
    names[f'{prefix}.output.dense'] = (width, inner)
    names[f'{prefix}.output.LayerNorm'] = ()
  for name, shape in names.items():
    add(f'{name}.weight', *(shape or (width,)))
    add(f'{name}.bias', shape[0] if shape else width)
  return tensors


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('bert')
  (path / 'config.json').write_text(json.dumps(SHAPE))
  tensors = make_tensors(np.random.default_rng(0))
  safetensors.numpy.save_file(tensors, path / 'model.safetensors')
  make_tokenizer().save(str(path / 'tokenizer.json'))
  return path


def test_equals_the_reference(directory, mesh1):
  tensors = safetensors.numpy.load_file(directory / 'model.safetensors')
  config, params, tokenizer = encoder.load(directory)
  vectors = encoder.embed(
    TEXTS, config, params, tokenizer, mesh1, max_length=40, batch_tokens=64
  )
  assert vectors.dtype == np.float32
  plain = make_tokenizer()
  plain.no_padding()
  for text, vector in zip(TEXTS, vectors, strict=True):
    want = reference(tensors, plain.encode(text).ids, heads=3)
    # float32 against float64 through two layers.
    np.testing.assert_allclose(vector, want, atol=2e-5)


def test_batching_and_devices_change_nothing(directory, mesh1, mesh8):
  config, params, tokenizer = encoder.load(directory)
  one = encoder.embed(
    TEXTS, config, params, tokenizer, mesh1, max_length=40, batch_tokens=64
  )
  eight = encoder.embed(
    TEXTS, config, params, tokenizer, mesh8, max_length=40, batch_tokens=64
  )
  single = encoder.embed(
    TEXTS[3:4], config, params, tokenizer, mesh1, max_length=40, batch_tokens=64
  )
  # Other shapes sum in another order: a few float32 roundings.
  np.testing.assert_allclose(one, eight, atol=1e-6)
  np.testing.assert_allclose(one[3], single[0], atol=1e-6)


def test_bfloat16_operands_stay_close(directory, mesh1):
  config, params, tokenizer = encoder.load(directory)
  exact = encoder.embed(
    TEXTS, config, params, tokenizer, mesh1, max_length=40, batch_tokens=64
  )
  config, params, tokenizer = encoder.load(directory, bf16_matmul=True)
  rough = encoder.embed(
    TEXTS, config, params, tokenizer, mesh1, max_length=40, batch_tokens=64
  )
  assert 1e-6 < np.abs(exact - rough).max()
  assert (exact * rough).sum(1).min() > 0.999


def test_long_texts_are_cut(directory, mesh1):
  config, params, tokenizer = encoder.load(directory)
  texts = ['star wars toy story', 'star wars toy']
  long, short = encoder.embed(
    texts, config, params, tokenizer, mesh1, max_length=5, batch_tokens=64
  )
  np.testing.assert_array_equal(long, short)
  with pytest.raises(ValueError, match='max_length 41 must lie in 3..40'):
    encoder.embed(texts, config, params, tokenizer, mesh1, max_length=41)


def test_texts_do_not_spell_special_tokens(directory):
  *_, tokenizer = encoder.load(directory)
  special = set(tokenizer.get_added_tokens_decoder())
  assert len(special) == 5
  for name in ('[CLS]', '[SEP]', '[PAD]', '[MASK]', 'toy [SEP][UNK] story'):
    ids = tokenizer.encode(name, add_special_tokens=False).ids
    known = {tokenizer.token_to_id('[UNK]')}
    assert special.isdisjoint(set(ids) - known), name
  whole = tokenizer.encode('toy [SEP] story').ids
  assert (
    whole.count(tokenizer.token_to_id('[SEP]'))
    == 1
    == whole[-1:].count(tokenizer.token_to_id('[SEP]'))
  )


def test_files_that_do_not_fit_are_named(directory, tmp_path):
  raw = json.loads((directory / 'config.json').read_text())
  wide = tmp_path / 'config.json'
  wide.write_text(json.dumps(raw | {'intermediate_size': 41}))
  with pytest.raises(ValueError, match=r'intermediate.dense.*\(41, 24\)'):
    bert.read_params(directory / 'model.safetensors', bert.read_config(wide))
  wide.write_text(json.dumps(raw | {'hidden_act': 'relu'}))
  with pytest.raises(ValueError, match="hidden_act is 'relu'"):
    bert.read_config(wide)


def test_ids_beyond_the_table_are_refused(directory, tmp_path):
  for path in directory.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  grown = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
  grown.add_tokens(['prada'])
  grown.save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(ValueError, match='ids up to .* has only .* rows'):
    encoder.load(tmp_path)


def test_item_text_leaves_out_what_is_missing():
  item = dataset.Item(
    'b1', 'Eau', ('Beauty', 'Fragrance'), 'Prada', 2.5, description='Nice'
  )
  text = encoder.item_text(item)
  assert text == 'Eau. Categories: Beauty, Fragrance. Brand: Prada. Nice'
  assert encoder.item_text(dataset.Item('b2', 'Eau')) == 'Eau'


@pytest.mark.slow
def test_real_weights(mesh1):
  """Cosine with the reference, and similarities that others published."""
  directory = assets.fetch('minilm')
  config, params, tokenizer = encoder.load(directory)
  sentences = [
    'The weather is lovely today.',
    "It's so sunny outside!",
    'He drove to the stadium.',
  ]
  titles = [
    line.split('\t')[1]
    for path in assets.fetch('ml-100k').rglob('ml-100k.item')
    for line in path.read_text(encoding='utf-8').splitlines()[1:]
  ]
  texts = sentences + titles[::20]
  vectors = encoder.embed(texts, config, params, tokenizer, mesh1)
  tensors = safetensors.numpy.load_file(directory / 'model.safetensors')
  for text, vector in zip(texts, vectors, strict=True):
    want = reference(tensors, tokenizer.encode(text).ids, config.heads)
    assert vector @ want > 0.99999
  # The first example in the documentation of Sentence Transformers.
  np.testing.assert_allclose(
    (vectors[:3] @ vectors[:3].T)[[0, 0, 1], [1, 2, 2]],
    [0.6660, 0.1046, 0.1411],
    atol=1e-4,
  )
