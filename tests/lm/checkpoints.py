"""Small checkpoints of every kind that is loaded here, and their loaders."""

import json

import gguf as gguf_package
import jax
import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import models, pre_tokenizers

from gr2_jax import sharding
from gr2_jax.lm import gguf, hf, hf_config, io, layout
from gr2_jax.lm.config import LMConfig
from gr2_jax.teacher import chat_tokenizer
from gr2_jax.text import encoder, pretrained
from gr2_jax.text.vocab import Vocab
from tests.text import made

SHAPE = LMConfig(
  vocab_size=352,
  width=4,
  layers=1,
  heads=1,
  kv_heads=1,
  head_dim=4,
  mlp_dim=4,
)
_BERT = {
  'vocab_size': 6,
  'hidden_size': 4,
  'num_hidden_layers': 1,
  'num_attention_heads': 1,
  'intermediate_size': 4,
  'max_position_embeddings': 8,
  'layer_norm_eps': 1e-12,
}


def tensors(config):
  """Returns random tensors of a model, by the names of transformers."""
  rng = np.random.default_rng(0)
  return {
    hf.tensor_name(name): rng.normal(
      size=shape[::-1] if name.path[-1] == 'kernel' else shape
    ).astype(np.float32)
    for name, shape in layout.names(config)
  }


def write_hf(path, config=SHAPE):
  """Writes a Hugging Face directory with its tokenizer."""
  (path / 'config.json').write_text(
    json.dumps(hf_config.to_json(config, 'float32'))
  )
  safetensors.numpy.save_file(tensors(config), path / 'model.safetensors')
  made.qwen().save(str(path / 'tokenizer.json'))
  (path / 'tokenizer_config.json').write_text(
    json.dumps({'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>'})
  )
  (path / 'generation_config.json').write_text('{"eos_token_id": [2, 3]}')
  (path / 'chat_template.jinja').write_text('{{ messages[0].content }}')
  return path


def shard(path):
  """Puts the weights of a directory into two files with an index."""
  whole = safetensors.numpy.load_file(path / 'model.safetensors')
  (path / 'model.safetensors').unlink()
  names = sorted(whole)
  where = {}
  for number, part in enumerate((names[:3], names[3:])):
    file = f'model-{number}.safetensors'
    safetensors.numpy.save_file({k: whole[k] for k in part}, path / file)
    where |= dict.fromkeys(part, file)
  index = json.dumps({'weight_map': where})
  (path / 'model.safetensors.index.json').write_text(index)
  return path


def write_gguf(path):
  """Writes a directory with one GGUF file."""
  tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), 'he', '<|im_end|>']
  writer = gguf_package.GGUFWriter(path / 'model.gguf', 'llama')
  for key, value in {
    'llama.block_count': 1,
    'llama.embedding_length': 4,
    'llama.feed_forward_length': 4,
    'llama.attention.head_count': 1,
    'tokenizer.ggml.eos_token_id': 257,
  }.items():
    writer.add_uint32(key, value)
  writer.add_float32('llama.attention.layer_norm_rms_epsilon', 1e-5)
  writer.add_string('tokenizer.ggml.model', 'gpt2')
  writer.add_string('tokenizer.ggml.pre', 'smollm')
  writer.add_string('tokenizer.chat_template', '{{ messages[0].content }}')
  writer.add_array('tokenizer.ggml.tokens', tokens)
  writer.add_array('tokenizer.ggml.token_type', [1] * 257 + [3])
  writer.add_array('tokenizer.ggml.merges', ['h e'])
  shapes = {'token_embd': (258, 4), 'output_norm': (4,)}
  for name in ('attn_q', 'attn_k', 'attn_v', 'attn_output'):
    shapes[f'blk.0.{name}'] = (4, 4)
  for name in ('ffn_gate', 'ffn_up', 'ffn_down'):
    shapes[f'blk.0.{name}'] = (4, 4)
  shapes |= {'blk.0.attn_norm': (4,), 'blk.0.ffn_norm': (4,)}
  for name, shape in shapes.items():
    writer.add_tensor(f'{name}.weight', np.ones(shape, np.float32))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def write_bert(path):
  """Writes a sentence encoder."""
  names = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'toy', 'story']
  words = models.WordPiece({n: i for i, n in enumerate(names)})
  tokenizers.Tokenizer(words).save(str(path / 'tokenizer.json'))
  (path / 'config.json').write_text(json.dumps(_BERT))
  table = 'embeddings.{}_embeddings.weight'.format
  shapes = {table('word'): (6, 4), table('position'): (8, 4)}
  shapes[table('token_type')] = (2, 4)
  layer = 'encoder.layer.0.'
  dense = [f'{layer}attention.self.{x}' for x in ('query', 'key', 'value')]
  dense += [f'{layer}attention.output.dense', f'{layer}output.dense']
  norms = ['embeddings.LayerNorm', f'{layer}attention.output.LayerNorm']
  norms += [f'{layer}output.LayerNorm']
  for name in (*dense, f'{layer}intermediate.dense'):
    shapes |= {f'{name}.weight': (4, 4), f'{name}.bias': (4,)}
  for name in norms:
    shapes |= {f'{name}.weight': (4,), f'{name}.bias': (4,)}
  filled = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
  safetensors.numpy.save_file(filled, path / 'model.safetensors')
  return path


def write_vocab(path):
  """Writes a vocabulary of ours, on pieces of another."""
  Vocab.pretrained(made.pretrained('qwen'), 2, 3).save(path)
  return path


def write_trained_vocab(path):
  """Writes a vocabulary of ours, on pieces trained here."""
  Vocab.train(made.LINES, 330, 2, 3).save(path)
  return path


def _mesh():
  return sharding.make_mesh(devices=jax.devices()[:1])


def write_own(path):
  """Writes a model of ours."""
  write_hf(path)
  config, params = hf.load(path, _mesh())
  for file in path.iterdir():
    file.unlink()
  io.save(path, config, params)
  return path


def load_gguf(path):
  """Reads all of a GGUF file."""
  gguf.load(path / 'model.gguf', _mesh())
  chat_tokenizer.read(path / 'model.gguf')


# Name: (writes a directory, reads it, the files that it reads).
KINDS = {
  'hf': (
    write_hf,
    lambda path: hf.load(path, _mesh()),
    ('config.json', 'model.safetensors'),
  ),
  'hf_shards': (
    lambda path: shard(write_hf(path)),
    lambda path: hf.load(path, _mesh()),
    ('model-1.safetensors', 'model.safetensors.index.json'),
  ),
  'pieces': (
    write_hf,
    pretrained.read,
    ('tokenizer.json', 'tokenizer_config.json'),
  ),
  'chat_tokenizer': (
    write_hf,
    chat_tokenizer.read,
    (
      'tokenizer.json',
      'tokenizer_config.json',
      'config.json',
      'generation_config.json',
    ),
  ),
  'gguf': (write_gguf, load_gguf, ('model.gguf',)),
  'encoder': (
    write_bert,
    encoder.load,
    ('config.json', 'model.safetensors', 'tokenizer.json'),
  ),
  'vocab': (write_vocab, Vocab.load, ('vocab.json', 'text.json')),
  'trained_vocab': (
    write_trained_vocab,
    Vocab.load,
    ('vocab.json', 'text.model'),
  ),
  'own': (
    write_own,
    lambda path: io.load(path, _mesh(), sharding.TRAIN_RULES),
    ('lm_config.json',),
  ),
}
