"""Readers take a stage's own config, and refuse stages that do not fit."""

import pathlib

import pytest

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.ranker import export, judging, new_items, ranker
from gr2_jax.run import lineage
from tests.integration import small

READERS = {
  'rerank': ranker.load,
  'export': lambda run: export.export(run, 'rl', run / 'model'),
  'judge': lambda run: judging.run(run, lambda writer: None, 1),
  'new_items': new_items.load,
}


@pytest.fixture
def run(tmp_path):
  """A finished run, of records alone."""
  base = ('data', 'sid', 'midtrain', 'candidates')
  small.finish(tmp_path, 'data', data={'dir': 'a'})
  small.finish(tmp_path, 'sid', base[:1], sid={'codes': 8})
  small.finish(tmp_path, 'midtrain', base[:2], text={'pieces': 9}, lm={})
  small.finish(tmp_path, 'candidates', base[:3], text={'pieces': 9})
  small.finish(tmp_path, 'traces', base, text={'pieces': 9})
  small.finish(tmp_path, 'sft', (*base, 'traces'), text={'pieces': 9})
  small.finish(tmp_path, 'rl', (*base, 'sft'), rl={'lr': 0.5})
  latest = {'seed': 0, 'data': {'dir': 'b'}, 'rl': {'lr': 1.0}, 'mesh': {}}
  config_lib.save(latest, tmp_path / 'config.json')
  return tmp_path


def test_a_stage_is_read_with_what_it_was_made_with(run):
  config = lineage.config(run, 'rl')
  assert config.data.dir == 'a' and config.rl.lr == 0.5
  assert config.sid.codes == 8 and config.text.pieces == 9
  assert list(lineage.check(run, 'rl')) == [
    *('data', 'sid', 'midtrain', 'candidates', 'traces', 'sft', 'rl')
  ]
  # Of later stages only the last start knows.
  config = lineage.config(run, 'sid')
  assert config.data.dir == 'a' and config.rl.lr == 1.0


def test_a_stage_made_from_another_input_is_named_with_the_remedy(run):
  small.finish(run, 'sid', ['data'], sid={'codes': 16})
  with pytest.raises(ValueError) as refused:
    lineage.config(run, 'rl')
  message = str(refused.value)
  assert "'midtrain' was made from another 'sid'" in message
  command = f'python -m launch.pipeline --config=CONFIG --workdir={run} --redo'
  assert f'`{command}`' in message
  # The stage itself belongs to what it was made from.
  assert lineage.config(run, 'sid').sid.codes == 16


@pytest.mark.parametrize('reader', READERS)
def test_every_reader_refuses_stages_that_do_not_fit(run, reader, monkeypatch):
  small.finish(run, 'data', data={'dir': 'c'})
  with pytest.raises(ValueError, match="'sid' was made from another 'data'"):
    READERS[reader](run)
  monkeypatch.setenv('HOME', str(run.parent))
  with pytest.raises(ValueError, match=f'{run} do not belong together'):
    READERS[reader](pathlib.Path('~') / run.name)


@pytest.mark.parametrize('reader', READERS)
def test_every_reader_refuses_a_stage_that_is_not_finished(run, reader):
  (run / 'data' / 'DONE').unlink()
  with pytest.raises(FileNotFoundError, match="'data' of .* is not finished"):
    READERS[reader](run)
  (run / 'config.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
    READERS[reader](run)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('DONE', '{}', r"it lacks \['fingerprint'\]\. Remove it, and run .*--redo"),
    ('DONE', '[]', 'holds a list, not an object'),
    ('DONE', '{"fingerprint": 7}', r"it lacks \['fingerprint'\]"),
    (
      'config.json',
      '{"seed": 0, "inputs": [], "external": "", "config": null}',
      r"it lacks \['inputs', 'config'\]",
    ),
    ('config.json', '{"seed": 0}', "it lacks \\['inputs', 'external',"),
  ],
)
def test_a_damaged_record_of_a_stage_is_named(run, name, content, message):
  (run / 'sid' / name).write_text(content)
  with pytest.raises(ValueError, match=f'sid/{name} .*{message}'):
    lineage.config(run, 'rl')


@pytest.mark.parametrize('content', ['', '[]', '{"seed": ', 'null'])
def test_a_damaged_config_of_a_run_is_named(run, content):
  (run / 'config.json').write_text(content)
  with pytest.raises(ValueError, match=f'{run}/config.json'):
    lineage.config(run, 'rl')


def test_settings_that_differ_between_stages_are_named(run):
  inputs = ('data', 'sid', 'midtrain', 'candidates', 'sft')
  small.finish(run, 'rl', inputs, text={'pieces': 7}, rl={'lr': 0.5})
  with pytest.raises(
    ValueError, match=r'midtrain -> rl\): text\.pieces: 9 -> 7'
  ):
    lineage.config(run, 'rl')
  key = lineage.read_key(run, 'rl')
  key['seed'] = 1
  files.write_json(run / 'rl' / 'config.json', key)
  with pytest.raises(
    ValueError, match=r'data -> rl\): seed: 0 -> 1\. .*--redo'
  ):
    lineage.config(run, 'rl')


def test_a_long_difference_is_cut():
  changed = [
    ('config.a.x', 1, 2),
    ('external', 'ab', 'cd'),
    ('inputs.sid', 'ef', 'gh'),
    ('seed', 0, 1),
  ]
  assert lineage.describe(changed, 3) == (
    'config.a.x: 1 -> 2, the files that it reads from outside the run, '
    'seed: 0 -> 1, and 1 more'
  )
