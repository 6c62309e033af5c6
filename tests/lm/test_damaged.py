"""Damaged files of checkpoints: each loader names the file and the remedy."""

import contextlib
import gc
import json
import pathlib
import shutil
import tempfile

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from gr2_jax.lm import gguf, hf, hf_config, tensor_files
from gr2_jax.lm.config import LMConfig
from gr2_jax.teacher import chat_tokenizer
from gr2_jax.text import pretrained, tokenizer_files
from tests.lm import checkpoints

FILES = [(kind, file) for kind, (*_, names) in checkpoints.KINDS.items()
         for file in names]  # fmt: skip
POINTER = (
  b'version https://git-lfs.github.com/spec/v1\noid sha256:'
  + b'4d' * 32
  + b'\nsize 12345\n'
)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """`whole(kind)` is the directory of a sound checkpoint."""
  found = {}

  def get(kind):
    if kind not in found:
      found[kind] = checkpoints.KINDS[kind][0](tmp_path_factory.mktemp(kind))
    return found[kind]

  return get


@pytest.fixture
def copy(whole, tmp_path):
  """`copy(kind)` is a copy of it, to be damaged, and its loader."""

  def get(kind):
    shutil.copytree(whole(kind), tmp_path / 'model')
    return tmp_path / 'model', checkpoints.KINDS[kind][1]

  return get


@pytest.mark.parametrize('kind', checkpoints.KINDS)
def test_a_sound_one_is_read(copy, kind):
  path, load = copy(kind)
  load(path)


@pytest.mark.parametrize(
  ('content', 'remedy'),
  [
    (lambda found: b'', ''),
    (lambda found: found[: len(found) // 2], ''),
    (lambda found: found[: -min(40, len(found) // 3)], ''),
    (lambda found: POINTER, 'git lfs pull|again'),
    (lambda found: b'\xff\xfe\x00' + found, ''),
    (lambda found: b'[1, 2]', ''),
    (lambda found: b'[' * 100_000, ''),
  ],
  ids=['empty', 'half', 'cut', 'pointer', 'utf16', 'list', 'deep'],
)
@pytest.mark.parametrize(('kind', 'file'), FILES)
def test_a_damaged_file_is_named(copy, kind, file, content, remedy):
  path, load = copy(kind)
  target = path / file
  sound = target.read_bytes()
  target.write_bytes(content(sound))
  if sound.strip() == content(sound).strip():
    return  # It lost its last line break.
  with pytest.raises(ValueError, match=remedy or 'again') as error:
    load(path)
  assert str(path) in str(error.value)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_model_of_ours_that_is_not_whole(copy):
  path, load = copy('own')
  for file in (path / 'params').rglob('*'):
    if file.is_file() and file.name != '_METADATA':
      file.write_bytes(file.read_bytes()[:-9])
  with pytest.raises(ValueError, match='params cannot be read.*again'):
    load(path)
  # Orbax leaves what it was waiting for.
  gc.collect()


@pytest.mark.parametrize(
  ('kind', 'file', 'message'),
  [
    ('pieces', 'tokenizer.json', 'tokenizer.json is missing: give'),
    ('chat_tokenizer', 'tokenizer.json', 'tokenizer.json is missing: give'),
    ('encoder', 'tokenizer.json', 'tokenizer.json is missing: give'),
    ('hf', 'config.json', 'config.json is missing'),
    ('hf', 'model.safetensors', 'model.safetensors is missing: fetch'),
    ('hf_shards', 'model-1.safetensors', 'model-1.safetensors is missing'),
  ],
)
def test_a_missing_file_is_named(copy, kind, file, message):
  path, load = copy(kind)
  (path / file).unlink()
  with pytest.raises(FileNotFoundError, match=message):
    load(path)


def test_what_lies_in_the_place_of_a_file_is_said(copy):
  path, load = copy('hf')
  (path / 'tokenizer.json').rename(path / 'vocab.json')
  with pytest.raises(FileNotFoundError, match=r"\['vocab.json'\].*AutoToken"):
    pretrained.read(path)
  (path / 'model.safetensors').rename(path / 'pytorch_model.bin')
  with pytest.raises(FileNotFoundError, match='pickled weights'):
    load(path)
  (path / 'adapter_config.json').write_text('{}')
  with pytest.raises(FileNotFoundError, match='merge it into its base model'):
    load(path)


def test_an_index_without_its_map(copy):
  path, load = copy('hf_shards')
  index = path / 'model.safetensors.index.json'
  for content in ({}, {'weight_map': []}, {'weight_map': {'a': 3}}):
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='json (has no weight_map|names)'):
      load(path)


@pytest.mark.parametrize('value', ['nan', '-inf'])
@pytest.mark.parametrize('kind', ['hf', 'hf_shards', 'encoder', 'gguf'])
def test_weights_that_are_not_finite_are_named(copy, kind, value):
  path, load = copy(kind)
  if kind == 'gguf':
    # Its tensors are ones; the first number behind the header.
    file, one = path / 'model.gguf', np.float32(1).tobytes()
    content = file.read_bytes()
    place = content.index(one * 8)
    changed = np.float32(value).tobytes()
    file.write_bytes(content[:place] + changed + content[place + 4 :])
  else:
    file = sorted(path.glob('*.safetensors'))[-1]
    tensors = safetensors.numpy.load_file(file)
    tensors[sorted(tensors)[-1]].flat[-1] = np.float32(value)
    safetensors.numpy.save_file(tensors, file)
  with pytest.raises(
    ValueError, match='1 of .* are not finite: .*again'
  ) as error:
    load(path)
  assert str(path) in str(error.value)


def test_an_index_of_other_shards(copy):
  path, load = copy('hf_shards')
  index = path / 'model.safetensors.index.json'
  weights = json.loads(index.read_text())['weight_map']
  moved = {name: 'model-0.safetensors' for name in weights}
  index.write_text(json.dumps({'weight_map': moved}))
  with pytest.raises(ValueError, match='index.json has .* not in there'):
    load(path)
  index.write_text(json.dumps({'weight_map': weights}))
  twice = safetensors.numpy.load_file(path / 'model-0.safetensors')
  twice |= safetensors.numpy.load_file(path / 'model-1.safetensors')
  safetensors.numpy.save_file(twice, path / 'model-1.safetensors')
  with pytest.raises(ValueError, match='is in model-0.* and in model-1'):
    load(path)


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    ('generation_config.json', {'eos_token_id': '2'}, 'eos_token_id is .2.'),
    ('generation_config.json', {'eos_token_id': 9999}, r'tokens \[9999\]'),
    ('tokenizer_config.json', {'eos_token': 3}, 'eos_token is 3'),
    ('tokenizer_config.json', {'eos_token': {}}, 'eos_token is {}'),
    ('tokenizer_config.json', {'chat_template': 3}, 'chat_template is a int'),
    ('tokenizer_config.json', {'chat_template': [{}]}, 'chat_template is a li'),
  ],
)
def test_values_of_another_type_are_named(copy, file, content, message):
  path, _ = copy('chat_tokenizer')
  (path / 'chat_template.jinja').unlink()
  template = {'eos_token': '<|im_end|>', 'chat_template': 'x'}
  (path / 'tokenizer_config.json').write_text(json.dumps(template))
  (path / file).write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f'{file}.*{message}|{message}'):
    chat_tokenizer.read(path)


def test_a_template_that_fails_in_its_own_way_is_said():
  for source in ('{{ 1 // 0 }}', '{{ [][3].x }}', '{{ range(10**9) }}'):
    made = chat_tokenizer.ChatTemplate(source, {}, 'the model')
    with pytest.raises(ValueError, match='template of the model refuses'):
      made.render([{'role': 'user', 'content': 'x'}])


def _damaged(data, directory, names):
  """Changes some bytes of one of the files; returns what undoes it."""
  path = directory / data.draw(st.sampled_from(names))
  sound = path.read_bytes()
  found = bytearray(sound)
  most = min(len(found) - 1, data.draw(st.sampled_from([99, len(found)])))
  for _ in range(data.draw(st.integers(1, 3))):
    place = data.draw(st.integers(0, most))
    found[place] = data.draw(st.integers(0, 255))
  path.write_bytes(found)
  return lambda: path.write_bytes(sound)


def _corrupt(kind, directory, examples):
  load, names = checkpoints.KINDS[kind][1:]

  @hypothesis.settings(deadline=None, max_examples=examples, database=None)
  @hypothesis.given(st.data())
  def run(data):
    undo = _damaged(data, directory, names)
    try:
      load(directory)
    except (ValueError, FileNotFoundError) as error:
      assert str(directory) in str(error), error
    finally:
      undo()

  run()


# Of a model of ours JAX builds the shapes each time.
QUICK = {'own': 5, 'hf': 15, 'hf_shards': 10, 'gguf': 20}


@pytest.mark.parametrize('kind', checkpoints.KINDS)
def test_a_corrupted_byte_is_named_or_harmless(whole, kind):
  _corrupt(kind, whole(kind), QUICK.get(kind, 25))


@pytest.mark.slow
@pytest.mark.parametrize('kind', checkpoints.KINDS)
def test_many_corrupted_bytes(whole, kind):
  _corrupt(kind, whole(kind), 1500)


JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-3, 2**70)
  | st.floats()
  | st.text(max_size=5)
  | st.sampled_from(['llama', 'qwen3', 'llama3', '<|im_end|>']),
  lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=2),
  max_leaves=5,
)


def _changes(sound):
  """Dictionaries of a few changed keys of a sound one."""
  return st.dictionaries(st.sampled_from(sorted(sound)), JSON, max_size=3)


CONFIG = hf_config.to_json(checkpoints.SHAPE, 'float32')
CONFIG |= {'layer_types': [], 'hidden_act': 'silu', 'rope_scaling': {}}


def fuzz_json(examples):
  settings = hypothesis.settings(
    deadline=None, max_examples=examples, database=None
  )

  @settings
  @hypothesis.given(_changes(CONFIG))
  def config(changes):
    try:
      found = hf_config.from_json(CONFIG | changes)
    except ValueError:
      return
    assert isinstance(found, LMConfig) and found.width <= 2**24

  @settings
  @hypothesis.given(st.binary(max_size=60) | JSON.map(_dumped))
  def files(content):
    for file in (
      *('config.json', 'tokenizer_config.json', 'tokenizer.json'),
      *('model.safetensors.index.json', 'generation_config.json'),
    ):
      (directory / file).write_bytes(content)
    for read in (
      hf.read_config,
      tokenizer_files.read,
      chat_tokenizer.read,
      lambda path: tokenizer_files.Config(path).token('eos_token'),
      lambda path: tensor_files.open_all(path, contextlib.ExitStack()),
    ):
      try:
        read(directory)
      except (ValueError, FileNotFoundError) as error:
        assert str(directory) in str(error)

  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    config()
    files()


def _dumped(value):
  return json.dumps(value).encode()


def fuzz_headers(examples, sound_gguf):
  header = sound_gguf.read_bytes()

  @hypothesis.settings(deadline=None, max_examples=examples, database=None)
  @hypothesis.given(
    st.binary(max_size=80)
    | st.tuples(st.integers(0, 600), st.binary(max_size=12)).map(
      lambda cut: header[: cut[0]] + cut[1] + header[cut[0] + len(cut[1]) :]
    )
    | st.tuples(st.just(b''), JSON.map(_dumped)).map(
      lambda part: len(part[1]).to_bytes(8, 'little') + part[1] + bytes(16)
    )
  )
  def run(content):
    path = directory / 'x.gguf'
    path.write_bytes(content)
    for read in (gguf.read_config, gguf.read_tokenizer, tensor_files.open_one):
      try:
        read(path)
      except ValueError as error:
        assert str(path) in str(error)

  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    run()


def test_no_json_breaks_a_reader():
  fuzz_json(100)


def test_no_header_breaks_a_reader(whole):
  fuzz_headers(100, whole('gguf') / 'model.gguf')


@pytest.mark.slow
def test_ten_thousand_of_each(whole):
  fuzz_json(10_000)
  fuzz_headers(10_000, whole('gguf') / 'model.gguf')
