"""Chat templates and the tokens of a conversation."""

import json

import gguf as gguf_package
import pytest

from gr2_jax import files
from gr2_jax.teacher import chat_tokenizer
from tests.text import made

TOLD = [
  {'role': 'system', 'content': 'Be brief.'},
  {'role': 'user', 'content': ' Which? '},
]
# As the files of the families have them, cut to what plain messages reach.
CHATML = (
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = """\
{%- if tools %}
    {{- raise_exception('no tools') }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ \
message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
CASES = {
  CHATML: (
    '<|im_start|>system\nBe brief.<|im_end|>\n'
    '<|im_start|>user\n Which? <|im_end|>\n<|im_start|>assistant\n'
  ),
  QWEN3: (
    '<|im_start|>system\nBe brief.<|im_end|>\n'
    '<|im_start|>user\n Which? <|im_end|>\n<|im_start|>assistant\n'
    '<think>\n\n</think>\n\n'
  ),
  LLAMA3: (
    '<s>Today Date: 26 Jul 2024\n\n'
    '<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>'
    '<|start_header_id|>user<|end_header_id|>\n\nWhich?<|eot_id|>'
    '<|start_header_id|>assistant<|end_header_id|>\n\n'
  ),
  # Lines of statements leave nothing; a token that a model lacks is empty.
  '{% if true %}\n  {% set x = 1 %}\n{{ pad_token }}a{{ x }}\n{% endif %}\n': (
    'a1\n'
  ),
  '{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}'
  '{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}': 'system',
  '{{ messages[0] | tojson }}': '{"role": "system", "content": "Be brief."}',
}


def _template(source):
  return chat_tokenizer.ChatTemplate(source, {'bos_token': '<s>'}, 'the model')


@pytest.mark.parametrize('source', CASES, ids=range(len(CASES)))
def test_it_renders_as_transformers_does(source):
  assert _template(source).render(TOLD) == CASES[source]


def test_of_several_templates_the_default_one_is_taken():
  several = [
    {'name': 'tool_use', 'template': 'tools'},
    {'name': 'default', 'template': 'plain'},
  ]
  assert _template(several).render(TOLD) == 'plain'
  with pytest.raises(ValueError, match=r"\['tool_use'\] and none called"):
    _template(several[:1])


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ("{{ raise_exception('System role not supported') }}", 'System role not'),
    ("{{ messages[0]['role'] + 1 }}", 'the model refuses'),
    ('{{ undefined_function() }}', 'undefined_function'),
    # The sandbox.
    ('{{ messages.append(1) }}', 'unsafe|append'),
    ("{{ ''.__class__.__mro__[1].__subclasses__() }}", 'the model refuses'),
    # Half a surrogate pair.
    ("{{ '\\ud800' }}", 'the model refuses .*surrogates'),
  ],
)
def test_what_a_template_refuses_is_said(source, message):
  with pytest.raises(ValueError, match=message):
    _template(source).render(TOLD)


@pytest.mark.parametrize(
  'source',
  [
    '{% if %}',
    '{{' + '(' * 5000,
    '{% for a in b %}' * 30 + '{% endfor %}' * 30,
    '{% if a %}' * 150 + '{% endif %}' * 150,
    '{{ 10**5000 }}',
  ],
)
def test_a_template_that_is_none_is_named(source):
  with pytest.raises(ValueError, match='the model is no Jinja'):
    _template(source)


@pytest.fixture
def directory(tmp_path):
  made.qwen().save(str(tmp_path / 'tokenizer.json'))
  files.write_json(
    tmp_path / 'tokenizer_config.json',
    {'eos_token': {'content': '<|im_end|>'}, 'chat_template': CHATML},
  )
  files.write_json(tmp_path / 'config.json', {'eos_token_id': 3})
  files.write_json(
    tmp_path / 'generation_config.json', {'eos_token_id': [3, 7]}
  )
  return tmp_path


def test_a_directory_is_read(directory):
  found = chat_tokenizer.read(directory)
  end = found.tokenizer.token_to_id('<|im_end|>')
  assert found.name == directory.name
  assert found.ends == (end, 3, 7)
  tokens = found.encode(TOLD)
  assert tokens.count(end) == 2
  assert tokens.count(found.tokenizer.token_to_id('<|im_start|>')) == 3
  # All of it, special tokens included.
  text = found.tokenizer.decode(tokens, skip_special_tokens=False)
  assert text == CASES[CHATML]
  assert found.decode([*tokens[:1], *found.tokenizer.encode('Toy').ids]) == (
    'Toy'
  )


def test_a_prompt_is_never_cut_by_the_file(directory):
  path = directory / 'tokenizer.json'
  spec = json.loads(path.read_text())
  spec['truncation'] = {
    'direction': 'Right',
    'max_length': 4,
    'strategy': 'LongestFirst',
    'stride': 0,
  }
  path.write_text(json.dumps(spec))
  assert len(chat_tokenizer.read(directory).encode(TOLD)) > 10


def test_a_template_file_goes_before_the_config(directory):
  (directory / 'chat_template.jinja').write_text(QWEN3)
  assert chat_tokenizer.read(directory).template.render(TOLD) == CASES[QWEN3]


def test_a_model_without_a_template_or_an_end_is_named(directory):
  files.write_json(directory / 'tokenizer_config.json', {})
  with pytest.raises(ValueError, match='has no chat template .*instruct'):
    chat_tokenizer.read(directory)
  (directory / 'chat_template.jinja').write_text(CHATML)
  assert chat_tokenizer.read(directory).ends == (3, 7)
  for name in ('config.json', 'generation_config.json'):
    (directory / name).unlink()
  with pytest.raises(ValueError, match='does not say which token ends'):
    chat_tokenizer.read(directory)
  (directory / 'tokenizer.json').unlink()
  with pytest.raises(FileNotFoundError, match='tokenizer.json is missing'):
    chat_tokenizer.read(directory)


def test_a_gguf_file_is_read(tmp_path):
  path = tmp_path / 'model.gguf'
  tokens = [*sorted(made.pre_tokenizers.ByteLevel.alphabet()), 'he']
  tokens += ['<|im_start|>', '<|im_end|>']
  writer = gguf_package.GGUFWriter(path, 'llama')
  for key, value in {
    'llama.block_count': 1,
    'llama.embedding_length': 8,
    'llama.feed_forward_length': 8,
    'llama.attention.head_count': 1,
    'tokenizer.ggml.eos_token_id': 258,
    'tokenizer.ggml.eot_token_id': 3,
  }.items():
    writer.add_uint32(key, value)
  writer.add_float32('llama.attention.layer_norm_rms_epsilon', 1e-5)
  writer.add_string('tokenizer.ggml.model', 'gpt2')
  writer.add_string('tokenizer.ggml.pre', 'smollm')
  writer.add_string('tokenizer.chat_template', CHATML)
  writer.add_array('tokenizer.ggml.tokens', tokens)
  writer.add_array('tokenizer.ggml.token_type', [1] * 257 + [3, 3])
  writer.add_array('tokenizer.ggml.merges', ['h e'])
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  found = chat_tokenizer.read(path)
  assert found.name == 'model.gguf' and found.ends == (258, 3)
  assert found.encode(TOLD).count(258) == 2
