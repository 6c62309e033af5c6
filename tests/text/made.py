"""Small tokenizers in the forms in which pretrained LLMs bring theirs."""

import json

from tokenizers import (
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from gr2_jax.text import bpe
from gr2_jax.text.pretrained import Pretrained

LINES = [
  'Toy Story (1995) | Animation > Comedy "so" it is \\ here.\n',
  'GoldenEye (1995) | Action > Thriller ["x"]} and ["y"]} and ["z"]}',
  'Le Fabuleux Destin d\u2019Am\u00e9lie Poulain (2001)\t\u65e5\u672c',
] * 4
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
# The places at which Qwen's and Llama 3's files split a text.
WORDS = '|'.join(
  [
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r'[^\r\n\p{L}\p{N}]?\p{L}+',
    r'\p{N}',
    r' ?[^\s\p{L}\p{N}]+[\r\n]*',
    r'\s*[\r\n]+',
    r'\s+(?!\S)',
    r'\s+',
  ]
)


def _byte_level(splitter, normalizer=None):
  """Byte-level BPE; the special tokens follow the model's pieces."""
  made = Tokenizer(models.BPE())
  made.normalizer = normalizer
  made.pre_tokenizer = splitter
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(
    LINES,
    trainers.BpeTrainer(
      vocab_size=340,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  made.add_special_tokens(SPECIAL)
  made.add_tokens(['<think>'])
  return made


def gpt2():
  """GPT-2's form."""
  return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))


def smollm():
  """SmolLM2's form: digits stand alone."""
  return _byte_level(
    pre_tokenizers.Sequence(
      [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
      ]
    )
  )


def _split():
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Split(Regex(WORDS), 'isolated'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )


def qwen():
  """Qwen's form: NFC, and a pattern of its own."""
  return _byte_level(_split(), normalizers.NFC())


def llama3():
  """Llama 3's form: whole words skip the merges, and a begin is put first."""
  spec = json.loads(_byte_level(_split()).to_str())
  spec['model']['ignore_merges'] = True
  made = Tokenizer.from_str(json.dumps(spec))
  begin = ('<|im_start|>', made.token_to_id('<|im_start|>'))
  made.post_processor = processors.TemplateProcessing(
    single='<|im_start|> $A', special_tokens=[begin]
  )
  return made


def _llama2(spec_changes):
  """Llama 2's form: control pieces and bytes first, spaces as U+2581."""
  made = Tokenizer(models.BPE())
  made.normalizer = normalizers.Replace(' ', '\u2581')
  made.pre_tokenizer = pre_tokenizers.Split('\u2581', 'merged_with_next')
  made.train_from_iterator(
    LINES, trainers.BpeTrainer(vocab_size=120, show_progress=False)
  )
  spec = json.loads(made.to_str())
  pieces = sorted(spec['model']['vocab'], key=spec['model']['vocab'].get)
  first = ['<unk>', '<s>', '</s>', *map(bpe.byte_piece, range(256))]
  vocab = {name: i for i, name in enumerate(first + pieces)}
  spec['model'] |= {'vocab': vocab, 'byte_fallback': True}
  spec['model'] |= {'unk_token': '<unk>', 'fuse_unk': True}
  # The library's own decoder takes the space in front away again.
  spec['decoder'] = {
    'type': 'Sequence',
    'decoders': [
      {'type': 'Replace', 'pattern': {'String': '\u2581'}, 'content': ' '},
      {'type': 'ByteFallback'},
      {'type': 'Fuse'},
      {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0},
    ],
  }
  spec |= {'pre_tokenizer': None, **spec_changes}
  made = Tokenizer.from_str(json.dumps(spec))
  made.add_special_tokens(['<unk>', '<s>', '</s>'])
  return made


def llama2():
  """The older form: the space in front is the normalizer's."""
  space = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\u2581'}
  steps = [{'type': 'Prepend', 'prepend': '\u2581'}, space]
  return _llama2({'normalizer': {'type': 'Sequence', 'normalizers': steps}})


def metaspace():
  """The newer form: the space in front is the pre-tokenizer's."""
  step = {'type': 'Metaspace', 'replacement': '\u2581', 'split': False}
  step['prepend_scheme'] = 'first'
  return _llama2({'normalizer': None, 'pre_tokenizer': step})


BYTE_LEVEL = {'gpt2': gpt2, 'smollm': smollm, 'qwen': qwen, 'llama3': llama3}
KINDS = {**BYTE_LEVEL, 'llama2': llama2, 'metaspace': metaspace}


def pretrained(kind):
  """Returns one of them as text pieces, with the roles of its family."""
  tokenizer = KINDS[kind]()
  if kind in BYTE_LEVEL:
    begin = '<|im_start|>' if kind == 'llama3' else None
    return Pretrained(tokenizer, eos='<|im_end|>', bos=begin)
  return Pretrained(tokenizer, eos='</s>', bos='<s>')
