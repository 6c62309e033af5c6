"""What a dry run says: prompts as they are sent, and numbers to pay by."""

import ml_collections
import numpy as np
import pytest

from gr2_jax import config as config_lib
from gr2_jax import files
from gr2_jax.run import artifacts
from gr2_jax.stages import dry_run, requests
from gr2_jax.teacher import messages
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording
from tests.integration import small
from tests.text import made

TEMPLATE = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}"
  '<|im_end|>{% endfor %}<|im_start|>assistant'
)


@pytest.fixture
def run(workdir):
  """A config and a run whose stages before traces are finished: 12 lists."""
  vocab = vocab_lib.Vocab.train(wording.corpus(small.ITEMS), 400, 2, 5)
  for stage in ('midtrain', 'candidates'):
    (workdir / stage).mkdir()
    files.write_json(workdir / stage / 'DONE', {'fingerprint': stage})
  vocab.save(workdir / 'midtrain' / 'vocab')
  made_up = small.dataset()
  candidates = np.full((12, small.K), -1)
  target = np.where(np.arange(12) % 3 == 0, -1, 1)
  for user in range(12):
    after = made_up.sequence(user)[5]
    others = np.setdiff1d(np.arange(20), after)[: small.K - (user % 2)]
    candidates[user, : len(others)] = others
    if target[user] >= 0:
      candidates[user, 1] = after
  files.atomic_savez(
    workdir / 'candidates' / 'train.npz',
    user=np.arange(12),
    position=np.full(12, 5),
    candidates=candidates,
    scores=np.zeros((12, small.K), np.float32),
    target=target,
  )
  config = ml_collections.ConfigDict(
    {
      'data': {'kind': 'generic', 'split': {}},
      'candidates': {'fold_use': 'head'},
      'text': {'prompt': {'max_candidates': small.K, 'history_items': 3}},
      'traces': {
        'sft_share': 1.0,
        'teacher': 'endpoint',
        'model': 'qwen3-32b',
        'mode': 'rejection',
        'attempts': 4,
        'explanation_tokens': 100,
        'prompt': {'priming': False},
        'sampling': {'max_tokens': 700},
      },
    }
  )
  return config, workdir


def test_numbers_by_hand():
  found = dry_run.Estimate(
    lists=100,
    attempts=8,
    prompt=2000.5,
    longest_prompt=2400,
    answer=600,
    max_tokens=1000,
  )
  assert found.requests == (100, 800)
  assert found.tokens_in == (200_050, 1_600_400)
  assert found.tokens_out == (60_000, 800_000)
  fewest, most = found.cost(0.5, 2.0)
  np.testing.assert_allclose(fewest, 0.100025 + 0.12)
  np.testing.assert_allclose(most, 0.8002 + 1.6)


def test_the_numbers_of_a_run(run):
  config, workdir = run
  dry = dry_run.DryRun(config, workdir)
  found = dry.estimate()
  # 8 of 12 lists hold their target.
  assert (found.lists, found.attempts) == (8, 4)
  assert found.requests == (8, 32)
  examples = list(dry.examples())
  assert [kind.split()[0] for kind, *_ in examples] == [
    'rejection',
    'targeted',
  ]
  lengths = [tokens for *_, tokens in examples]
  assert found.prompt <= found.longest_prompt
  assert abs(found.prompt - lengths[0]) < 0.05 * lengths[0]
  assert lengths[1] > lengths[0]
  config.traces.lists = 5
  assert dry_run.DryRun(config, workdir).estimate().lists == 5


def test_the_lists_that_sft_reads_are_counted(run):
  config, workdir = run
  stored = workdir / 'candidates' / 'train.npz'
  arrays = {name: rows[1:6] for name, rows in np.load(stored).items()}
  files.atomic_savez(stored.with_name('folds.npz'), **arrays)
  lists = lambda: dry_run.DryRun(config, workdir).estimate().lists
  assert lists() == 8
  # Of users 1 to 5 all but user 3.
  config.candidates.fold_use = 'sft'
  assert lists() == 4 + 8
  config.traces.sft_share = 0.25
  assert lists() == 4 + 2


def test_a_reader_sees_what_is_sent_and_what_it_costs(run):
  config, workdir = run
  text = dry_run.describe(config, workdir, 0.5, 2.0)
  dry = dry_run.DryRun(config, workdir)
  for kind, shown, tokens in dry.examples():
    assert f'{kind}: {tokens:,} tokens =====\n{shown}' in text
  assert "targeted (not asked: traces.mode is 'rejection')" in text
  assert "teacher 'endpoint', model 'qwen3-32b'" in text
  assert 'own vocabulary, an estimate' in text
  fewest, most = dry.estimate().cost(0.5, 2.0)
  line = next(t for t in text.splitlines() if t.startswith('cost'))
  assert line.split() == ['cost', f'{fewest:.2f}', f'{most:.2f}']
  assert 'What is known of how people choose' not in text
  assert 'WARNING' not in text
  free = dry_run.describe(config, workdir)
  assert 'cost' not in free.replace('costs', '')
  config.traces.sampling.max_tokens = 50
  assert 'WARNING: an answer may take' in dry_run.describe(config, workdir)


def test_a_teacher_sees_no_more_history_than_the_run_shows(run):
  config, workdir = run
  (_, shown, _), *_ = dry_run.DryRun(config, workdir).examples()
  history = shown.split('oldest first:\n')[1].split('\n\n')[0].splitlines()
  assert len(history) == 3
  config.traces.prompt.history_items = 2
  (_, shown, _), *_ = dry_run.DryRun(config, workdir).examples()
  assert (
    shown.split('oldest first:\n')[1].split('\n\n')[0].splitlines()
    == (history[1:])
  )


def _writer(store):
  cfg = config_lib.build(requests.TracesConfig, store.config.traces)
  return requests.make_writer(store, cfg)


def test_the_words_that_are_asked_for_fit_the_budget(run):
  config, workdir = run
  store = artifacts.Artifacts(config, workdir)
  writer = _writer(store)
  # A vocabulary of 400 pieces cuts words into letters.
  assert writer.cfg.tokens_a_word > 2.5
  words = 'the latest items lead to what is used together with them'.split()
  text = ' '.join((words * 9)[: writer.words])
  cited = messages.CITATIONS * (2 + 2)
  used = len(store.vocab.encode(f' {text}', added='none')) + cited
  assert 60 < used <= 110
  config.traces.prompt.tokens_a_word = 2.0
  assert _writer(store).words == (100 - cited) // 2


def test_a_local_model_counts_and_writes_by_its_own_tokenizer(run, tmp_path):
  config, workdir = run
  model = tmp_path / 'mini'
  model.mkdir()
  made.qwen().save(str(model / 'tokenizer.json'))
  files.write_json(
    model / 'tokenizer_config.json',
    {'eos_token': '<|im_end|>', 'chat_template': TEMPLATE},
  )
  config.traces.teacher, config.traces.model = 'local', str(model)
  text = dry_run.describe(config, workdir)
  assert 'counted by the tokenizer of mini' in text
  assert '<|im_start|>system You are' in text
  (_, shown, tokens), *_ = dry_run.DryRun(config, workdir).examples()
  assert tokens == len(made.qwen().encode(shown).ids)


def test_what_is_missing_is_named(run):
  config, workdir = run
  (workdir / 'candidates' / 'DONE').unlink()
  with pytest.raises(FileNotFoundError, match='candidates, which is not fin'):
    dry_run.describe(config, workdir)
  files.write_json(workdir / 'candidates' / 'DONE', {})
  path = workdir / 'candidates' / 'train.npz'
  arrays = dict(np.load(path))
  arrays['target'][:] = -1
  files.atomic_savez(path, **arrays)
  with pytest.raises(ValueError, match='no training list that holds'):
    dry_run.describe(config, workdir)
  config.data.kind = 'synthetic'
  with pytest.raises(ValueError, match='synthetic world'):
    dry_run.describe(config, workdir)
