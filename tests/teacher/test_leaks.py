"""A prompt without a hint cannot contain the answer."""

import dataclasses
import re

import hypothesis
import ml_collections
import numpy as np
from hypothesis import strategies as st

from gr2_jax import config as config_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.run import artifacts
from gr2_jax.stages import requests
from gr2_jax.teacher import base, messages
from gr2_jax.teacher import config as teacher_config
from gr2_jax.text import vocab as vocab_lib
from gr2_jax.text import wording

search = hypothesis.settings(deadline=None, max_examples=60)
# Titles and semantic IDs of which none is part of another.
ITEMS = [
  dataset_lib.Item(f'i{i}', f'Title {i:03} end', ('Root', f'Leaf {i % 3}'))
  for i in range(40)
]
SIDS = np.stack([np.arange(40) // 8, np.arange(40) % 8], axis=1)
WRITER = messages.Writer(
  ITEMS,
  SIDS,
  teacher_config.MessageConfig(history_items=8, tokens_a_word=1.5),
  explanation_tokens=40,
)
VOCAB = vocab_lib.Vocab.train(wording.corpus(ITEMS), 400, 5, 8)
SID = re.compile(r'<\|sid_begin\|><s_a_(\d+)><s_b_(\d+)><\|sid_end\|>')


@st.composite
def lists(draw):
  """A history (items may come again) and candidates, one of them true."""
  history = draw(st.lists(st.integers(0, 39), max_size=12))
  candidates = draw(
    st.lists(st.integers(0, 39), min_size=2, max_size=10, unique=True)
  )
  return (
    np.array(history, int),
    np.array(candidates),
    draw(st.sampled_from(candidates)),
  )


def _text(request):
  return '\n'.join(m['content'] for m in WRITER.messages(request))


def _named(text):
  return [8 * int(a) + int(b) for a, b in SID.findall(text)]


@search
@hypothesis.given(lists())
def test_the_target_stands_where_and_as_often_as_any_candidate(world):
  history, candidates, target = world
  text = _text(base.Request(history, candidates))
  shown = history[-WRITER.cfg.history_items :].tolist()
  # Nothing but the history and the candidates, in the order of the pre-ranker.
  assert _named(text) == [*shown, *candidates.tolist()]
  often = {
    item: text.count(ITEMS[item].title) - shown.count(item)
    for item in candidates.tolist()
  }
  assert often[target] == 1 and set(often.values()) == {1}


@search
@hypothesis.given(lists())
def test_only_a_hint_tells_the_target(world):
  history, candidates, target = world
  request = base.Request(history, candidates)
  plain = _text(request)
  hinted = _text(dataclasses.replace(request, hint=int(target)))
  assert _named(hinted) == [*_named(plain), target]
  # Another answer, the same question.
  others = [_text(base.Request(history, candidates)) for _ in candidates]
  assert set(others) == {plain}
  assert WRITER.schema(request) == WRITER.schema(
    dataclasses.replace(request, hint=int(target))
  )


def _store(sequences, target, mode='rejection'):
  """A run whose users saw `sequences`, with one list a user at place 5."""
  config = ml_collections.ConfigDict(
    {
      'data': {'split': {}},
      'text': {'prompt': {'history_items': 4}},
      'traces': {'mode': mode, 'explanation_tokens': 100},
    }
  )
  store = artifacts.Artifacts(config, None)
  store.__dict__['dataset'] = dataset_lib.from_sequences(
    'made-up', ITEMS, {f'u{u:02}': s for u, s in enumerate(sequences)}
  )
  store.__dict__['sids'] = SIDS
  store.__dict__['vocab'] = VOCAB
  users = len(sequences)
  candidates = np.stack(
    [np.random.default_rng(u).permutation(40)[:6] for u in range(users)]
  )
  lists = artifacts.CandidateLists(
    user=np.arange(users),
    position=np.full(users, 5),
    candidates=candidates,
    scores=np.zeros((users, 6)),
    target=target,
    grades=np.zeros((users, 6), int),
    features=np.zeros((users, 6, 0), np.float32),
    fold=np.full(users, -1),
  )
  return store, lists


def _prompts(sequences, target):
  store, lists = _store(sequences, target)
  cfg = config_lib.build(requests.TracesConfig, store.config.traces)
  writer = requests.make_writer(store, cfg)
  return [
    writer.messages(requests.request(store, lists, row))
    for row in range(len(lists))
  ]


@search
@hypothesis.given(st.randoms(use_true_random=False))
def test_what_comes_at_and_after_the_target_changes_nothing(random):
  rng = np.random.default_rng(0)
  sequences = rng.integers(0, 40, (6, 9))
  before = _prompts(sequences, np.zeros(6, int))
  # The target, what is held out behind it, and that of all other users.
  changed = sequences.copy()
  for row in changed:
    row[5:] = random.choices(range(40), k=4)
  target = np.array(random.choices(range(6), k=6))
  assert _prompts(changed, target) == before
  # What comes before it does.
  changed[0, 4] = (changed[0, 4] + 1) % 40
  assert _prompts(changed, target)[0] != before[0]
