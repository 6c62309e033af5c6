"""Settings under which training would silently do nothing are refused."""

import dataclasses

import pytest

from gr2_jax.rl import config as rl_config
from tests.rl import tiny


@pytest.mark.parametrize(
  ('name', 'value', 'match'),
  [
    ('updates_per_rollout', 1, 'clip never acts'),
    ('group_size', 1, 'at least 2'),
    ('overlong_buffer', -1, 'max_new_tokens'),
    ('overlong_buffer', 25, 'max_new_tokens'),
    ('reward', 'mrr', "'promotion', 'auc' or 'ndcg'"),
    ('invalid', -0.5, '-1 or 0'),
    ('invalid', 1.0, '-1 or 0'),
    ('credit', 'late', "'answer', or 'causal'"),
    ('prompts_per_step', 7, 'multiple'),
    ('temperature', 0.0, 'above 0'),
    ('max_rounds', 0, 'at least 1'),
    ('advantage_norm', 'var', "'std' or 'none'"),
    ('prompt_buckets', (64, 32), 'rising'),
    ('over_sampling', 0.5, 'at least 1'),
    ('over_sampling', 1.3, 'whole prompts'),
    ('max_staleness', -1, 'at least 0'),
    ('old_logps', 'mean', "'sampler' or 'recomputed'"),
    ('tis_cap', 2.0, "old_logps = 'recomputed'"),
    ('loss_level', 'answer', "'token' or 'sequence'"),
    ('reward_weight', 0.0, 'nothing would be learned'),
    ('reference', 'sft', 'rl.kl = 0.0'),
    ('entropy_bonus', -0.1, 'at least 0'),
    ('start', 'data', "'sft' or 'midtrain'"),
    ('lists', 'valid', "'train' or 'folds'"),
    ('rankings', 2, 'at least 4'),
    ('rankings', 7, 'even'),
    ('lists_per_step', 0, 'multiple'),
    ('lists_per_step', 33, 'updates_per_rollout . microbatches = 2'),
    ('explained_per_step', -2, '0 .none. or a multiple'),
    ('explained_per_step', 7, 'multiple'),
  ],
)
def test_refused(name, value, match):
  with pytest.raises(ValueError, match=f'rl.{name}.*{match}'):
    dataclasses.replace(tiny.CONFIG, **{name: value})


def test_groups_must_divide_by_the_devices():
  rl_config.check_mesh(tiny.CONFIG, 4)
  with pytest.raises(ValueError, match='multiple of 16'):
    rl_config.check_mesh(tiny.CONFIG, 8)


def test_lists_must_divide_by_the_devices():
  change = dataclasses.replace
  config = change(tiny.CONFIG, lists_per_step=12, explained_per_step=16)
  check = lambda config, parts: rl_config.check_mesh(
    config, parts, 'likelihood'
  )
  check(config, 2)
  with pytest.raises(
    ValueError, match='rl.lists_per_step = 12 in 2 .* 4 devices.*multiple of 8'
  ):
    check(config, 4)
  config = change(config, lists_per_step=24)
  check(config, 4)
  with pytest.raises(ValueError, match='rl.explained_per_step = 12.* of 8'):
    check(change(config, explained_per_step=12), 4)
  check(change(config, explained_per_step=0), 4)
  # Each kind of answer has sizes of its own.
  rl_config.check_mesh(change(config, lists_per_step=2), 4, 'list')
  check(change(config, prompts_per_step=2), 4)


def test_explanations_are_drawn_half_by_each_head():
  change = dataclasses.replace
  for size in (2, 5):
    config = change(tiny.CONFIG, group_size=size)
    with pytest.raises(
      ValueError,
      match=f'rl.group_size = {size} .*even.*explained_per_step = 8',
    ):
      change(config, explained_per_step=8)
  change(tiny.CONFIG, group_size=6, explained_per_step=8)


def test_terms_that_need_each_other():
  change = dataclasses.replace
  with pytest.raises(ValueError, match=r"rl\.reference = ''.*rl\.kl = 0.1"):
    change(tiny.CONFIG, kl=0.1)
  with pytest.raises(ValueError, match=r"rl\.credit = 'causal'.*rl\.kl"):
    change(tiny.CONFIG, kl=0.1, reference='sft', credit='causal')
  with pytest.raises(ValueError, match=r'rl\.max_rounds = 2.*dynamic_sampling'):
    change(tiny.CONFIG, dynamic_sampling=False)
  change(tiny.CONFIG, dynamic_sampling=False, max_rounds=1)
  change(tiny.CONFIG, old_logps='recomputed', tis_cap=2.0)


def test_rounds_must_divide_by_the_devices():
  config = dataclasses.replace(tiny.CONFIG, over_sampling=1.25)
  assert config.prompts_per_round == 10
  rl_config.check_mesh(config, 2)
  with pytest.raises(ValueError, match='over_sampling.*10 prompts'):
    rl_config.check_mesh(config, 4)


def test_causal_credit_needs_the_constraint():
  with pytest.raises(ValueError, match=r"credit = 'causal'.*rl\.constrain"):
    dataclasses.replace(tiny.CONFIG, credit='causal', constrain=False)


def test_causal_credit_is_of_one_true_item():
  with pytest.raises(
    ValueError, match=r"credit = 'causal'.*rl\.reward = 'auc'"
  ):
    dataclasses.replace(tiny.CONFIG, credit='causal', reward='auc')


def test_no_overlong_penalty_unless_asked_for():
  fields = {f.name: f.default for f in dataclasses.fields(tiny.CONFIG)}
  assert fields['overlong_buffer'] == 0
  dataclasses.replace(tiny.CONFIG, overlong_buffer=0)
