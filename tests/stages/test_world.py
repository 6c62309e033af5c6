"""The stages before SFT in a synthetic world: what they leave behind."""

import numpy as np
import pytest

from configs import reward_world
from gr2_jax import files, sharding
from gr2_jax.data import synthetic
from gr2_jax.lm import io
from gr2_jax.rank import metrics
from gr2_jax.run import artifacts
from gr2_jax.stages import pipeline, sft_rows

BEFORE_SFT = ('data', 'sid', 'midtrain', 'candidates', 'traces')


def _config(**world):
  config = reward_world.get_config().base.copy_and_resolve_references()
  config.data.world.update({'users': 200, **world})
  config.lm.width, config.lm.layers, config.lm.mlp_dim = 16, 1, 16
  return config


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A world's run up to its answers."""
  workdir, config = tmp_path_factory.mktemp('world'), _config()
  pipeline.run(config, workdir, BEFORE_SFT)
  return config, artifacts.Artifacts(config, workdir)


def test_lists_hold_their_target_in_the_incoming_order(run):
  config, store = run
  world = synthetic.WorldConfig(**config.data.world)
  summary = files.read_json(store.workdir / 'candidates' / 'summary.json')
  for split in ('train', 'valid', 'test'):
    lists = store.lists(split)
    assert len(lists) == len(lists.hits()) == 200
    assert (np.diff(lists.scores) < 0).all()
    for row in range(len(lists)):
      history = store.history(lists.user[row], lists.position[row])
      shown = lists.candidates[row]
      taken = store.dataset.sequence(lists.user[row])[lists.position[row]]
      assert shown[lists.target[row]] == taken
      assert synthetic.best_order(world, history, shown)[0] == taken
    ndcg = metrics.ndcg_at_k(lists.target, 5)
    assert summary[split]['ndcg@5'] == pytest.approx(float(ndcg))
    assert 0.3 < ndcg < 0.95


def test_answers_know_the_format_and_not_the_rule(run):
  config, store = run
  answers = list(files.read_jsonl(store.workdir / 'traces' / 'traces.jsonl'))
  lists = store.lists('train')
  assert len(answers) == 200
  kept = true_first = 0
  for answer, target in zip(answers, lists.target.tolist(), strict=True):
    shown, order = answer['candidates'], answer['ranking']
    begin = shown.index(order[0])
    assert order == shown[begin:] + shown[:begin]
    assert answer['explanation'] == ''
    kept += order == shown
    true_first += begin == target
  # 200 draws: three standard errors of the share are 0.085.
  assert kept / 200 == pytest.approx(config.traces.keep, abs=0.085)
  # Five places, none likelier than another: three deviations are 0.085.
  assert true_first / 200 == pytest.approx(0.2, abs=0.085)


def test_sft_and_rl_read_what_was_written(run):
  config, store = run
  shape, _ = io.load(
    store.model('midtrain'), sharding.make_mesh(), sharding.TRAIN_RULES
  )
  assert shape.vocab_size == store.vocab.size
  trace = next(files.read_jsonl(store.workdir / 'traces' / 'traces.jsonl'))
  made = sft_rows.example(store, trace, 0.1, 1.0)
  # open, top, an item in its wrappers, mid, five items of two codes, four
  # separators, close, end.
  assert (made['weights'] > 0).sum() == 23
  assert len(made['tokens']) <= config.sft.train.length
  assert 23 <= config.rl.max_new_tokens


def test_other_codes_than_the_world_has_are_named(tmp_path):
  config = _config(groups=12)
  with pytest.raises(ValueError, match=r'\(2, 8\): set them to the 2 and 12'):
    pipeline.run(config, tmp_path, ('data', 'sid'))


@pytest.mark.slow  # Programs of SFT and RL: twenty seconds.
def test_sft_and_rl_run_in_a_world(tmp_path):
  config = _config()
  config.sft.train.steps = config.sft.train.ckpt_every = 2
  config.rl.update({'steps': 2, 'checkpoint_every': 2, 'valid_lists': 16})
  config.rl.prompts_per_step = 16
  pipeline.run(config, tmp_path, (*BEFORE_SFT, 'sft', 'rl'))
  summary = files.read_json(tmp_path / 'rl' / 'summary.json')
  assert summary['lists'] == 200
  # Two steps teach nothing: what is no permutation is served as it came.
  # The summary rounds the one to four digits.
  last, given = (summary[f'valid_ndcg@5_{x}'] for x in ('last', 'prerank'))
  assert last == pytest.approx(given, abs=1e-4)
