"""A tiny model as teacher: its tokens, counts, seeds and batches."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import assets, files, sharding
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.lm import decoder, hf
from gr2_jax.lm.config import LMConfig
from gr2_jax.teacher import base, chat_tokenizer, local, messages
from gr2_jax.teacher import config as teacher_config
from tests.text import made

ITEMS = [
  dataset_lib.Item(f'i{i}', 'so' * (1 + 9 * (i % 2)), ('x',)) for i in range(8)
]
SIDS = np.stack([np.arange(8) // 4, np.arange(8) % 4], axis=1)
# Prompts of two lengths, and more of one than a batch holds.
REQUESTS = [
  base.Request(np.array([i % 8]), np.array(candidates))
  for i, candidates in enumerate([[0, 2], [2, 4], [1, 3, 5, 7], [4, 6], [6, 0]])
]
SEEDS = [11, 12, 13, 14, 2**31 - 1]
CFG = local.LocalConfig(
  batch_size=2, bucket=64, param_dtype='float32', bf16_matmul=False
)
TEMPLATE = (
  "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
  '{% if add_generation_prompt %}<|im_start|>{% endif %}'
)
SHAPE = LMConfig(
  vocab_size=352,
  width=16,
  layers=2,
  heads=2,
  kv_heads=2,
  head_dim=8,
  mlp_dim=16,
  max_positions=400,
)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp('model')
  mesh = sharding.make_mesh()
  params = decoder.init(SHAPE, mesh, sharding.TRAIN_RULES, jax.random.key(7))
  # An untrained model says nearly the same everywhere: make it louder.
  params = jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, params)
  hf.save(path, SHAPE, params)
  made.qwen().save(str(path / 'tokenizer.json'))
  files.write_json(
    path / 'tokenizer_config.json',
    {'eos_token': '<|im_end|>', 'chat_template': TEMPLATE},
  )
  return path


@pytest.fixture(scope='module')
def writer(tmp_path_factory):
  folder = tmp_path_factory.mktemp('templates')
  (folder / 'short').mkdir()
  for name in ('system', 'priming', 'rejection', 'targeted'):
    (folder / 'short' / f'{name}.txt').write_text('x')
  (folder / 'short' / 'user.txt').write_text('$history\n$candidates')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(messages, 'TEMPLATES', folder)
    told = teacher_config.MessageConfig(
      'short', history_items=8, tokens_a_word=1.5
    )
    return messages.Writer(ITEMS, SIDS, told, explanation_tokens=60)


def _load(directory, mesh, writer, **sampling):
  sampling = teacher_config.SamplingConfig(**{'max_tokens': 12, **sampling})
  return local.load(str(directory), mesh, writer, sampling, CFG)


@pytest.fixture(scope='module')
def teacher(directory, writer, mesh1):
  return _load(directory, mesh1, writer)


def _ask(teacher, rows=range(5), attempt=0):
  requests = [REQUESTS[row] for row in rows]
  groups = list(teacher.answer(requests, attempt, [SEEDS[row] for row in rows]))
  found = {rows[index]: answer for group in groups for index, answer in group}
  assert sorted(found) == sorted(rows)
  assert sum(map(len, groups)) == len(rows)
  return found, groups


def test_it_writes_what_the_model_writes(directory, writer, mesh1):
  """Greedy: against the plain forward pass, token by token."""
  cold = _load(directory, mesh1, writer, temperature=0.0, temperature_step=0.0)
  found, groups = _ask(cold)
  # Two batches of short prompts and one of the long one.
  assert sorted(len(group) for group in groups) == [1, 2, 2]
  config, params = hf.load(directory, mesh1)
  forward = jax.jit(decoder.Decoder(config).apply)
  read = chat_tokenizer.read(directory)
  for row in (0, 2):
    tokens = read.encode(writer.messages(REQUESTS[row]))
    start = len(tokens)
    while len(tokens) < start + 12 and tokens[-1] != read.ends[0]:
      padded = jnp.asarray([tokens + [0] * (320 - len(tokens))])
      logits = forward({'params': params}, padded)
      tokens.append(int(logits[0, len(tokens) - 1].argmax()))
    assert found[row].prompt_tokens == start
    assert found[row].completion_tokens == len(tokens) - start
    assert found[row].text == read.decode(tokens[start:])
    assert found[row].ranking == []
    ended = tokens[-1] == read.ends[0]
    assert found[row].problem == ('not_json' if ended else 'cut_off')


def test_an_answer_depends_on_its_seed_and_not_on_its_batch(teacher):
  whole, _ = _ask(teacher)
  assert len({answer.text for answer in whole.values()}) == 5
  for rows in ([4, 3, 2, 1, 0], [3], [2, 0]):
    found, _ = _ask(teacher, rows)
    assert {r: a.text for r, a in found.items()} == {
      r: whole[r].text for r in rows
    }
  (group,) = teacher.answer([REQUESTS[0], REQUESTS[0]], 0, [5, 6])
  assert group[0][1].text != group[1][1].text


def test_devices_do_not_change_an_answer(teacher, directory, writer, mesh8):
  many = _load(directory, mesh8, writer)
  one, eight = (_ask(asked, [0, 1, 3])[0] for asked in (teacher, many))
  assert {r: a.text for r, a in eight.items()} == {
    r: a.text for r, a in one.items()
  }


def test_any_end_ends_an_answer_and_is_counted(teacher, directory, mesh1):
  text = _ask(teacher, [0])[0][0]
  assert text.completion_tokens == 12 and text.problem == 'cut_off'
  drawn = teacher._decode(
    [teacher._chat.encode(teacher._writer.messages(REQUESTS[0]))],
    192,
    0,
    SEEDS[:1],
  )[0]
  # A second end token, as Llama 3 and Qwen have: the fourth that is written.
  ends = (*teacher._chat.ends, drawn[3])
  config, params = hf.load(directory, mesh1)
  sampling = teacher_config.SamplingConfig(max_tokens=12)
  parrot = dataclasses.replace(
    Parrot(**vars(teacher._chat)),
    ends=ends,
  )
  again = local.LocalTeacher(
    parrot,
    config,
    params,
    mesh=mesh1,
    writer=teacher._writer,
    sampling=sampling,
    cfg=CFG,
  )
  ((_, found),) = next(again.answer(REQUESTS[:1], 0, SEEDS[:1]))
  assert found.completion_tokens == drawn.index(drawn[3]) + 1
  assert (found.problem, found.ranking) == (None, [2, 0])
  assert (found.explanation, found.text) == ('Yes.', Parrot.says)


class Parrot(chat_tokenizer.ChatTokenizer):
  """Whatever the model writes, it is a good answer."""

  says = json.dumps(
    {
      'explanation': 'Yes.',
      'recommendations': ['<s_a_0><s_b_2>', '<s_a_0><s_b_0>'],
    }
  )

  def decode(self, ids):
    return self.says


def test_a_later_attempt_is_warmer(teacher):
  first, later = (_ask(teacher, [1], attempt)[0][1] for attempt in (0, 5))
  assert first.text != later.text


def test_identity_is_all_that_shapes_answers(teacher, directory, writer, mesh1):
  warmer = _load(directory, mesh1, writer, temperature=0.8)
  assert teacher.name == directory.name
  assert teacher.identity != warmer.identity
  assert teacher.identity == json.loads(json.dumps(teacher.identity))
  assert teacher.identity['prompt']['digest'] == writer.digest
  path = directory / 'generation_config.json'
  files.write_json(path, {'eos_token_id': [9]})
  try:
    assert _load(directory, mesh1, writer).identity != teacher.identity
  finally:
    path.unlink()


def test_what_exceeds_the_model_is_refused(directory, writer, mesh1):
  greedy = _load(directory, mesh1, writer, max_tokens=300)
  with pytest.raises(ValueError, match='up to 300 exceed the 400 positions'):
    next(greedy.answer(REQUESTS, 0, SEEDS))
  with pytest.raises(FileNotFoundError, match="traces.model = 'nowhere'"):
    _load('nowhere', mesh1, writer)
  with pytest.raises(ValueError, match='local.bucket is 0'):
    local.LocalConfig(bucket=0)


def test_ids_beyond_the_table_are_refused(directory, writer, mesh1, tmp_path):
  shutil.copytree(directory, tmp_path / 'grown')
  more = made.qwen()
  more.add_special_tokens([f'<|new_{i}|>' for i in range(20)])
  more.save(str(tmp_path / 'grown' / 'tokenizer.json'))
  with pytest.raises(ValueError, match='has only 352 rows.*resize_token'):
    _load(tmp_path / 'grown', mesh1, writer)


# Of the model's own chat template, with what it puts around messages.
EXPECTED = """\
<|im_start|>system
Answer in one word.<|im_end|>
<|im_start|>user
What is the capital of France?<|im_end|>
<|im_start|>assistant
"""


class _Question:
  """Stands for a Writer: asks something that a small model can answer."""

  identity = {}

  def messages(self, request):
    return [
      {'role': 'system', 'content': 'Answer in one word.'},
      {'role': 'user', 'content': 'What is the capital of France?'},
    ]

  def read(self, text, request):
    return base.Answer([], text, text=text)


@pytest.mark.slow
def test_smollm2_answers_through_its_template(mesh1):
  path = assets.fetch('smollm2') / 'SmolLM2-135M-Instruct.Q4_1.gguf'
  read = chat_tokenizer.read(path)
  question = _Question()
  told = question.messages(None)
  assert read.template.render(told) == EXPECTED
  assert read.tokenizer.decode(
    read.encode(told), skip_special_tokens=False
  ) == (EXPECTED)
  assert (
    read.encode(told).count(read.tokenizer.token_to_id('<|im_start|>')) == 3
  )
  sampling = teacher_config.SamplingConfig(0.0, 0.0, max_tokens=24)
  cfg = local.LocalConfig(batch_size=1, bucket=64, scan=False)
  teacher = local.load('smollm2', mesh1, question, sampling, cfg)
  ((_, found),) = next(teacher.answer(REQUESTS[:1], 0, SEEDS[:1]))
  print(found)
  assert 'Paris' in found.text and found.problem is None
  assert found.completion_tokens < 24
