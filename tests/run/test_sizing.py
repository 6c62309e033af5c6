"""Settings that the data choose: a whole config, and never the user's."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from configs import own
from gr2_jax import config as config_lib
from gr2_jax import experiment
from gr2_jax.data import counting
from gr2_jax.run import costs, size_rules, sizing

counts_of = st.builds(
  lambda items, lengths, times: counting.Counts(
    items, np.tile(lengths, 1 + times)
  ),
  st.integers(counting.FEWEST_ITEMS, 3_000_000),
  st.lists(st.integers(1, 2000), min_size=30, max_size=60),
  st.integers(0, 2000),
)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(counts=counts_of)
def test_all_sizes_make_a_whole_config(counts):
  config = own.get_config().copy_and_resolve_references()
  config.data.dir = 'DIR'
  whole = sizing.choose(config, counts)
  run = experiment.read(whole)
  assert all(v is not None for v in config_lib.flatten(whole).values())
  held_out = run.data.split.n_test + run.data.split.n_valid
  held_out += run.data.split.n_train
  # The retriever keeps a part of the median history, where there is any.
  assert held_out == 3 or held_out <= counts.median - counts.median // 4
  alone = run.data.split.kind == 'leave_one_out'
  assert alone == (held_out == 3)
  assert run.sid.codes**run.sid.levels > 10 * counts.items
  cost = costs.estimate(whole, counts)
  assert all(work >= 0 for work in cost.flops.values())
  assert cost.memory > 1e9


def _write(folder, users=40, items=60, length=12):
  folder.mkdir()
  rows = ''.join(
    f'u{u},i{(7 * u + 5 * t) % items},{t}\n'
    for u in range(users)
    for t in range(length)
  )
  (folder / 'interactions.csv').write_text('user_id,item_id,timestamp\n' + rows)
  (folder / 'items.csv').write_text(
    'item_id,title,categories\n'
    + ''.join(f'i{i},Thing {i},A|B\n' for i in range(items))
  )


def test_the_config_is_filled_from_files_and_keeps_what_is_set(
  tmp_path, caplog
):
  caplog.set_level('INFO')
  _write(tmp_path / 'My shop!')
  config = own.get_config('seed=3')
  config.data.dir = str(tmp_path / 'My shop!')
  config.lm.width = 96
  config.midtrain.all.dropout = 0.3
  config.text.prompt.title_tokens = 20
  whole = sizing.fill(config)
  run = experiment.read(whole)
  assert run.data.name == 'My-shop'
  assert (run.seed, run.lm.width, run.midtrain.all.dropout) == (3, 96, 0.3)
  # Longer titles have room: sixteen items of 4 + 2 + 20 + 1 + 6 tokens.
  assert run.text.prompt.max_tokens >= 16 * 33 + 40
  counts = counting.Counts(60, np.full(40, 12))
  chosen = size_rules.sizes(counts)
  assert run.sid.codes == chosen['sid.codes']
  # Nothing is left to choose, so the same config comes back.
  assert sizing.fill(whole) is whole
  text = caplog.text
  assert 'Sizes for 40 users, 60 items and 480 interactions, 12 of' in text
  assert f'--config.sid.codes={run.sid.codes}' in text
  assert '--config.lm.width' not in text
  assert 'minutes on' in text and 'GiB of memory' in text


@pytest.mark.parametrize('spelling', ['', '.', '../shop', 'below/..'])
def test_all_spellings_of_a_folder_give_one_config(
  tmp_path, monkeypatch, spelling
):
  _write(tmp_path / 'shop')
  (tmp_path / 'shop' / 'below').mkdir()
  monkeypatch.chdir(tmp_path / 'shop')
  config = own.get_config()
  config.data.dir = spelling or str(tmp_path / 'shop')
  assert sizing.fill(config).data.name == 'shop'


def test_what_cannot_be_counted_is_named(tmp_path):
  config = own.get_config()
  with pytest.raises(ValueError, match='pass --config.data.dir=FOLDER'):
    sizing.fill(config)
  config.data.dir = str(tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='no such folder; set config.dat'):
    sizing.fill(config)
  _write(tmp_path / 'few', users=20)
  config.data.dir = str(tmp_path / 'few')
  with pytest.raises(ValueError, match="'few': of 240 interactions none is l"):
    sizing.fill(config)
  config.data.core = 0
  with pytest.raises(ValueError, match='Of 20 users .* 20 have 4 or more'):
    sizing.fill(config)
  config.data.beam = '--runner=DirectRunner'
  with pytest.raises(ValueError, match='data.beam = .* counts: leave it empty'):
    sizing.fill(config)


def test_a_wrong_setting_is_refused_before_the_data_are_read(tmp_path):
  config = own.get_config()
  config.data.dir = str(tmp_path / 'absent')
  config.rl.group_size = 1
  with pytest.raises(ValueError, match='rl.group_size = 1'):
    experiment.fill(config)


def test_a_setting_without_a_rule_is_named(tmp_path):
  _write(tmp_path / 'shop')
  config = own.get_config().copy_and_resolve_references()
  config.data.dir = str(tmp_path / 'shop')
  with config.ignore_type():
    config.rl.lr = None
  with pytest.raises(ValueError, match=r"\['rl.lr'\] are None, and no rule"):
    sizing.fill(config)
  with pytest.raises(ValueError, match='is not set: give a'):
    experiment.read(config)


def test_other_teachers_bring_their_budgets(tmp_path):
  _write(tmp_path / 'shop')
  config = own.get_config('teacher=endpoint')
  config.data.dir = str(tmp_path / 'shop')
  run = experiment.read(sizing.fill(config))
  assert run.traces.teacher == 'endpoint'
  assert run.rl.explanation_tokens == run.traces.explanation_tokens == 128
