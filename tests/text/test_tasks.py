"""Mid-training examples: their form, what is learned, and no leakage."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import pipeline
from gr2_jax.data import splits as splits_lib
from gr2_jax.text import prompts, tasks, wording
from gr2_jax.text import vocab as vocab_lib

ITEMS = [
  dataset_lib.Item(
    f'i{i}',
    f'Film {i} ({1990 + i})',
    (('Drama', 'Comedy')[i % 2],),
    brand=('Acme', '')[i % 2],
    description=('', 'A film of its time.')[i % 2],
  )
  for i in range(20)
]
SIDS = np.stack([np.arange(20) // 5, np.arange(20) % 5], axis=1)
PROMPT = prompts.PromptConfig(retrieval_items=4, max_tokens=600)
LENGTH = 128
CFG = tasks.TaskConfig(stride=2, persona_items=3)


@pytest.fixture(scope='module')
def vocab():
  return vocab_lib.Vocab.train(wording.corpus(ITEMS), 380, levels=2, codes=5)


def make_dataset(held_out=(1, 2, 3)):
  sequences = {
    'long': [*range(0, 20, 2), *range(1, 20, 2), *held_out],
    'short': [4, 5, *held_out],
    'tiny': [6, 7],
  }
  return dataset_lib.from_sequences('test', ITEMS, sequences)


def make_sources(vocab, dataset, cfg=CFG, length=LENGTH):
  splits = splits_lib.make(dataset, splits_lib.SplitConfig())
  return tasks.make(
    dataset, splits, SIDS, vocab, prompt=PROMPT, length=length, cfg=cfg
  )


@pytest.fixture(scope='module')
def sources(vocab):
  return make_sources(vocab, make_dataset())


def learned(vocab, example):
  return vocab.decode(example['tokens'][example['weights'] > 0])


def test_every_example_is_well_formed(vocab, sources):
  assert sorted(sources) == [
    'general_text',
    'item_text',
    'next_item',
    'persona',
  ]
  for source in sources.values():
    assert len(source) > 0
    for index in range(len(source)):
      example = source[index]
      tokens, weights = example['tokens'], example['weights']
      assert tokens.dtype == np.int32 and weights.dtype == np.float32
      assert tokens.shape == weights.shape and 2 < len(tokens) <= LENGTH
      assert tokens[0] == vocab.bos and weights[0] == 0 == weights[1]
      assert set(np.unique(weights)) == {0.0, 1.0}
    with pytest.raises(IndexError, match='examples'):
      source[len(source)]


def test_next_item_is_the_retrieval_prompt(vocab, sources):
  prompter = prompts.Prompter(vocab, ITEMS, SIDS, PROMPT)
  dataset = make_dataset()
  visible = dataset.sequence(0)[:20]
  # Windows of five items end at 20, 18, ..., 6, 4; the tiny users have one
  # item for the retriever or two.
  ends = [20, 18, 16, 14, 12, 10, 8, 6, 4]
  for index, end in enumerate(ends):
    example = sources['next_item'][index]
    window = visible[max(end - 5, 0) : end]
    prompt = prompter.retrieval(window[:-1])
    np.testing.assert_array_equal(example['tokens'][: len(prompt)], prompt)
    target = vocab.sid_tokens(SIDS[window[-1]]).tolist()
    assert example['tokens'][len(prompt) :].tolist() == [
      *target,
      vocab.sid_end,
    ]
    is_sid = example['tokens'] >= vocab.sid_offset
    np.testing.assert_array_equal(example['weights'], is_sid)
  assert len(sources['next_item']) == len(ends) + 1


def test_item_text_by_hand(vocab, sources):
  describe, identify = sources['item_text'][14], sources['item_text'][15]
  sid = '<|sid_begin|><s_a_1><s_b_2><|sid_end|>'
  text = ' Film 7 (1997) | Comedy'
  full = f'{text}. A film of its time.'
  assert vocab.decode(describe['tokens']) == f'<|describe|>{sid}{full}'
  assert learned(vocab, describe) == full
  assert vocab.decode(identify['tokens']) == f'<|identify|>{text}{sid}'
  assert learned(vocab, identify) == '<s_a_1><s_b_2><|sid_end|>'
  for example in (describe, identify):
    assert example['tokens'][-1] == vocab.eos and example['weights'][-1] == 1


def test_persona_by_hand(vocab, sources):
  index = [
    i
    for i in range(len(sources['persona']))
    if '<s_a_0><s_b_4>' in vocab.decode(sources['persona'][i]['tokens'])
  ][-1]
  text = vocab.decode(sources['persona'][index]['tokens'])
  assert text == (
    '<|persona|>'
    '<|sid_begin|><s_a_0><s_b_4><|sid_end|> Film 4 (1994) | Drama'
    '<|sid_begin|><s_a_1><s_b_0><|sid_end|> Film 5 (1995) | Comedy'
    ' This user likes mostly Drama and also Comedy.'
  )


def test_persona_names_a_brand_that_repeats():
  text = wording.persona([ITEMS[0], ITEMS[2]])
  assert text == ' This user likes mostly Drama from Acme.'
  assert wording.persona([dataset_lib.Item('a', 'b')]).endswith('mostly much.')


def test_nothing_of_a_held_out_interaction_is_seen(vocab):
  # Short users keep two items, which are the same in both data sets.
  first = make_sources(vocab, make_dataset((1, 2, 3)))
  second = make_sources(vocab, make_dataset((17, 18, 19)))
  for name, source in first.items():
    assert len(source) == len(second[name])
    for index in range(len(source)):
      for key, value in source[index].items():
        np.testing.assert_array_equal(value, second[name][index][key])


def test_long_texts_are_chunked_without_loss(vocab, sources):
  source = sources['general_text']
  whole = ''.join(
    vocab.decode(source[i]['tokens']).removeprefix('<|text|>')
    for i in range(len(source))
  )
  assert whole == ''.join(wording.plain_texts(ITEMS))
  assert len(source) > len(ITEMS) + 2, 'lists of titles take several chunks'


def test_too_short_a_length_is_refused_at_once(vocab):
  with pytest.raises(ValueError, match='length is 40'):
    make_sources(vocab, make_dataset(), length=40)
  with pytest.raises(ValueError, match='stride = 6'):
    make_sources(vocab, make_dataset(), tasks.TaskConfig(stride=6), 256)


@hypothesis.settings(deadline=None)
@hypothesis.given(
  lengths=st.lists(st.integers(0, 40), max_size=6),
  window=st.integers(2, 12),
  stride=st.integers(1, 11),
)
def test_windows_cover_every_position(lengths, window, stride):
  stride = min(stride, window)
  user, begin, end = tasks.windows(np.array(lengths), window, stride)
  assert np.all(end - begin <= window) and np.all(end - begin >= 2)
  for index, length in enumerate(lengths):
    seen = set()
    for b, e in zip(begin[user == index], end[user == index], strict=True):
      seen |= set(range(b, e))
    assert seen == (set(range(length)) if length > 1 else set())


def test_the_sources_feed_the_pipeline(vocab, sources):
  weights = dict.fromkeys(sources, 0.25)
  batches = pipeline.lm_iterator(sources, weights, LENGTH, 2, seed=0)
  for batch in itertools.islice(batches, 3):
    assert batch['tokens'].shape == (2, LENGTH)
    assert batch['weights'].sum() > 0
