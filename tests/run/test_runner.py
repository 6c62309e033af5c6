import ml_collections
import pytest

from gr2_jax import files
from gr2_jax.run import runner


def _config(**sections):
  mesh = {'data': -1, 'fsdp': 1, 'tensor': 1}
  return ml_collections.ConfigDict({'seed': 0, 'mesh': mesh, **sections})


def _stages(calls, fail=()):
  @runner.stage('first', sections=('a',))
  def first(config, context):
    calls.append('first')
    seen = sorted(p.name for p in context.directory.iterdir())
    (context.directory / 'artifact').write_text(str(config.a.x))
    if 'first' in fail:
      raise RuntimeError('killed')
    return {'x': config.a.x, 'seen': seen}

  @runner.stage('second', sections=('b',), inputs=('first',))
  def second(config, context):
    calls.append('second')
    return {'read': (context.input('first') / 'artifact').read_text()}

  return first, second


def test_done_stages_are_skipped_and_their_summary_returned(tmp_path):
  calls = []
  first, _ = _stages(calls)
  config = _config(a={'x': 1})
  summary = first(config, tmp_path)
  assert first(config, tmp_path) == summary
  assert calls == ['first']
  assert summary['x'] == 1 and summary['seconds'] >= 0


def test_a_profile_of_a_skipped_stage_is_told_to_be_missing(tmp_path, caplog):
  first, second = _stages([])
  config = _config(a={'x': 1}, b={})
  first(config, tmp_path)
  second(config, tmp_path)
  (tmp_path / 'first' / 'metrics.jsonl').touch()
  first(config, tmp_path)
  assert '--profile' not in caplog.text
  config.tracking = {'profile': '2:3'}
  first(config, tmp_path)
  assert 'Stage first: --profile=2:3 traces no step' in caplog.text
  second(config, tmp_path)  # It trains nothing.
  assert 'Stage second: --profile' not in caplog.text


def test_an_interrupted_stage_finds_what_it_had_written(tmp_path):
  fail = {'first'}
  first, _ = _stages([], fail)
  config = _config(a={'x': 1})
  with pytest.raises(RuntimeError):
    first(config, tmp_path)
  assert not (tmp_path / 'first' / 'DONE').exists()
  fail.clear()
  assert first(config, tmp_path)['seen'] == ['artifact', 'config.json']


def test_a_finished_stage_is_made_again_only_when_asked(tmp_path):
  calls = []
  first, second = _stages(calls)
  config = _config(a={'x': 1}, b={})
  first(config, tmp_path)
  second(config, tmp_path)
  config.a.x = 2
  for force in (False, True):
    with pytest.raises(ValueError, match=r'config\.a\.x: 1 -> 2\. .*--redo'):
      first(config, tmp_path, force)
  assert (tmp_path / 'first' / 'artifact').read_text() == '1'
  assert first(config, tmp_path, redo=True)['seen'] == ['config.json']
  with pytest.raises(ValueError, match="its input 'first'"):
    second(config, tmp_path)
  assert second(config, tmp_path, redo=True)['read'] == '2'
  # What fits is skipped, with `redo` too.
  first(config, tmp_path, redo=True)
  assert calls == ['first', 'second', 'first', 'second']


def test_artifacts_of_an_older_version_are_refused_until_asked(tmp_path):
  """The same config, whose artifacts mean something else now."""
  made = []
  bodies = [lambda config, context, n=n: made.append(n) or {} for n in (1, 2)]
  old, new = (
    runner.stage('first', sections=(), version=n)(body)
    for n, body in enumerate(bodies, 1)
  )
  old(_config(), tmp_path)
  with pytest.raises(ValueError, match='version: None -> 2'):
    new(_config(), tmp_path)
  new(_config(), tmp_path, redo=True)
  new(_config(), tmp_path)
  assert made == [1, 2]


def test_what_was_made_again_and_cut_off_goes_on_without_being_asked(tmp_path):
  fail = set()
  first, _ = _stages([], fail)
  first(_config(a={'x': 1}), tmp_path)
  fail.add('first')
  with pytest.raises(RuntimeError):
    first(_config(a={'x': 2}), tmp_path, redo=True)
  fail.clear()
  summary = first(_config(a={'x': 2}), tmp_path)
  assert summary['seen'] == ['artifact', 'config.json']


def test_another_section_does_not_redo_the_stage(tmp_path):
  calls = []
  first, _ = _stages(calls)
  first(_config(a={'x': 1}, b={'y': 1}), tmp_path)
  first(_config(a={'x': 1}, b={'y': 2}), tmp_path)
  assert calls == ['first']


def test_a_missing_input_is_named(tmp_path):
  _, second = _stages([])
  with pytest.raises(FileNotFoundError, match="stage 'first' first"):
    second(_config(b={}), tmp_path)


def test_stages_of_one_run_have_different_seeds(tmp_path):
  seeds = {}

  for name in ('one', 'two'):

    @runner.stage(name, sections=())
    def body(config, context, name=name):
      seeds[name] = context.seed
      return {}

    body(_config(), tmp_path)
  assert seeds['one'] != seeds['two']
  assert files.read_json(tmp_path / 'one' / 'summary.json')['seconds'] >= 0


def test_a_config_that_changed_under_checkpoints_is_refused_unless_forced(
  tmp_path,
):
  fail, calls = {'first'}, []
  first, _ = _stages(calls, fail)
  with pytest.raises(RuntimeError):
    first(_config(a={'x': 1}), tmp_path)
  (tmp_path / 'first' / 'checkpoints' / '20').mkdir(parents=True)
  fail.clear()
  config = _config(a={'x': 2})
  with pytest.raises(ValueError, match=r'config\.a\.x: 1 -> 2\. .*--force'):
    first(config, tmp_path)
  assert (tmp_path / 'first' / 'checkpoints' / '20').is_dir()
  seen = first(config, tmp_path, force=True, redo=True)['seen']
  assert seen == ['artifact', 'checkpoints', 'config.json']
  # Finished, it is made again as any other stage.
  config.a.x = 3
  assert first(config, tmp_path, redo=True)['seen'] == ['config.json']


def test_redo_starts_a_cut_off_stage_of_another_config_again(tmp_path, caplog):
  fail = {'first'}
  first, _ = _stages([], fail)
  with pytest.raises(RuntimeError):
    first(_config(a={'x': 1}), tmp_path)
  (tmp_path / 'first' / 'checkpoints' / '20').mkdir(parents=True)
  fail.clear()
  found = first(_config(a={'x': 2}), tmp_path, redo=True)
  assert found['seen'] == ['config.json'] and found['x'] == 2
  assert 'what it wrote is deleted, because of config.a.x: 1' in caplog.text
  assert not (tmp_path / 'first' / 'checkpoints').exists()


def test_redo_goes_on_with_a_cut_off_stage_of_the_same_config(tmp_path):
  fail = {'first'}
  first, _ = _stages([], fail)
  config = _config(a={'x': 1})
  with pytest.raises(RuntimeError):
    first(config, tmp_path)
  fail.clear()
  seen = first(config, tmp_path, redo=True)['seen']
  assert seen == ['artifact', 'config.json']


def test_changed_inputs_start_a_cut_off_stage_over_even_with_checkpoints(
  tmp_path,
):
  calls = []
  first, second = _stages(calls)
  config = _config(a={'x': 1}, b={})
  first(config, tmp_path)
  second(config, tmp_path)
  (tmp_path / 'second' / 'DONE').unlink()
  (tmp_path / 'second' / 'checkpoints' / '20').mkdir(parents=True)
  config.a.x = 2
  first(config, tmp_path, redo=True)
  assert second(config, tmp_path)['read'] == '2'
  assert not (tmp_path / 'second' / 'checkpoints').exists()


def test_the_policy_of_a_stage_holds_what_it_is_made_of(tmp_path):
  policies = []

  @runner.stage('one', sections=('a',))
  def body(config, context):
    policies.append(context.policy('-nll'))
    return {}

  body(_config(a={'x': 1}), tmp_path, force=True)
  (policy,) = policies
  assert policy.best == '-nll' and policy.force
  assert policy.config['config'] == {'a': {'x': 1}}
  assert policy.config['seed'] == 0 and policy.config['stage_seed']


def test_what_a_stage_keeps_survives_that_it_is_made_again(tmp_path):
  @runner.stage('one', sections=('a',), keep=('paid', 'list'))
  def body(config, context):
    seen = sorted(p.name for p in context.directory.iterdir())
    (context.directory / 'paid').mkdir(exist_ok=True)
    (context.directory / 'paid' / str(config.a.x)).write_text('dear')
    (context.directory / 'list').write_text('')
    (context.directory / 'cheap').mkdir()
    return {'seen': seen}

  body(_config(a={'x': 1}), tmp_path)
  again = body(_config(a={'x': 2}), tmp_path, redo=True)
  assert again['seen'] == ['config.json', 'list', 'paid']
  paid = sorted(p.name for p in (tmp_path / 'one' / 'paid').iterdir())
  assert paid == ['1', '2']
  # Back to the first config: what it had made is no longer there.
  back = body(_config(a={'x': 1}), tmp_path, redo=True)
  assert back['seen'] == again['seen']
