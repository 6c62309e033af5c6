"""The words of sampled answers: citations, budget, and answers that stop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import constrain as constraints
from gr2_jax.decode import ending
from gr2_jax.lm import decoder, logps
from gr2_jax.rl import parse
from gr2_jax.text import lengths

# As the fixture `sample` has them.
G, BUDGET, LEVELS = 4, 8, 3

read = jax.jit(parse.parse_ranking, static_argnums=2)


def named(fmt, sids):
  """Returns the tokens of semantic IDs [.., L], as tuples in a flat list."""
  tokens = np.asarray(sids) + fmt.sid_offset + np.arange(LEVELS) * fmt.codes
  return [tuple(x) for x in tokens.reshape(-1, LEVELS).tolist()]


def check_words(fmt, tokens, citable):
  """Checks what stands before `top`; returns the number of citations."""
  assert tokens[0] == fmt.open
  words, cited = tokens[1 : tokens.index(fmt.top)], 0
  assert len(words) <= BUDGET
  while fmt.sid_begin in words:
    at = words.index(fmt.sid_begin)
    assert tuple(words[at + 1 : at + 1 + LEVELS]) in citable
    assert words[at + 1 + LEVELS] == fmt.sid_end
    words, cited = words[:at] + words[at + LEVELS + 2 :], cited + 1
  # Of the 64 ids only the safe pieces of text are left.
  assert set(words) <= {1, 3, 4, *range(7, 13)}
  return cited


@pytest.mark.parametrize('temperature', [0.0, 1.0, 4.0])
def test_words_cite_what_is_shown_and_end_with_the_first_item(
  sample, remake, fmt, lists, citable, temperature
):
  cited = 0
  for seed in range(6):
    samples = sample(seed, temperature, params=remake(seed))
    places, valid = read(
      samples.tokens, lists[0][:, None], fmt, samples.mask, lists[1][:, None]
    )
    assert bool(valid.all())
    tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
    for q, g in np.ndindex(mask.shape[:2]):
      answer = tokens[q, g, mask[q, g]].tolist()
      shown = citable[0][q][np.asarray(citable[1][q])]
      count = check_words(fmt, answer, named(fmt, shown))
      assert q != 3 or not count, 'nothing can be cited there'
      cited += count
      first = named(fmt, lists[0][q])[int(np.argmin(places[q, g]))]
      top = answer.index(fmt.top)
      assert answer[top + 1 : top + LEVELS + 4] == [
        fmt.sid_begin,
        *first,
        fmt.sid_end,
        fmt.mid,
      ]
  assert cited > (20 if temperature > 1 else 0)


@functools.partial(jax.jit, static_argnames=('config', 'fmt', 'budget'))
def by_place(config, params, prompts, valid, tokens, fmt, budget, citing):
  """Free places of the words, scored by what the rule says of each place."""
  model = functools.partial(decoder.Decoder(config).apply, {'params': params})
  hidden = model(prompts, valid, tokens[..., :-1], method='hidden_shared')
  logits = model(hidden, method='unembed')
  place = jnp.arange(tokens.shape[-1])[None, None]
  fits = (place + LEVELS + 1 <= budget) & citing[:, None, None]
  begin = jnp.arange(logits.shape[-1]) == fmt.sid_begin
  out = jnp.asarray(constraints.banned(fmt, logits.shape[-1]))
  out = out[None, None, None] | (begin[None, None, None] & ~fits[..., None])
  return logps.token_logps(jnp.where(out, -jnp.inf, logits), tokens)[0]


def test_a_place_without_room_scores_no_citation(
  sample, tiny, fmt, prompts, citable
):
  """Ends of budgets are scored as drawn: over the ids that are left there."""
  samples = sample(9, 1.0)
  want = by_place(
    tiny.config,
    tiny.params,
    *prompts,
    samples.tokens,
    fmt,
    BUDGET,
    citable[1].any(-1),
  )
  free = (np.asarray(samples.allowed) < 0).all(-1) & np.asarray(samples.mask)
  late = np.asarray(samples.allowed)[..., 0] == -2 - fmt.sid_begin
  assert (free & late).sum() > 10 and (free & ~late).sum() > 10
  gap = np.where(free, np.asarray(want - samples.logps), 0.0)
  # float32 sums in another order; logits are of the size of 10.
  assert np.abs(gap).max() < 2e-4


@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_words_alone_are_those_of_whole_answers(
  sample, fmt, lists, citable, temperature
):
  """They stop at `top`, and the rest can be written behind them."""
  whole = sample(3, temperature)
  slots = lengths.words(BUDGET)
  words = sample(3, temperature, slots=slots, words_only=True)
  tokens, mask = np.asarray(words.tokens), np.asarray(words.mask)
  length = mask.sum(-1)
  assert length.max() <= slots and length.min() < slots
  for q, g in np.ndindex(mask.shape[:2]):
    n = length[q, g]
    assert tokens[q, g, n - 1] == fmt.top
    assert mask[q, g, :n].all() and not mask[q, g, n:].any()
    np.testing.assert_array_equal(tokens[q, g, :n], whole.tokens[q, g, :n])
    # Of other shapes: rounding.
    np.testing.assert_allclose(
      words.logps[q, g, :n], whole.logps[q, g, :n], atol=2e-4
    )
  order = jnp.broadcast_to(jnp.array([2, 0, 1]), (4, G, 3))
  short = jnp.broadcast_to(jnp.array([1, 0, 2]), (G, 3))
  order = order.at[2].set(short)
  spread = lambda x: jnp.broadcast_to(x[:, None], (4, G, *x.shape[1:]))
  sids, real = spread(lists[0]), spread(lists[1])
  places, valid = read(
    *ending.complete(
      fmt,
      words.tokens,
      words.mask,
      candidate_sids=sids,
      candidate_mask=real,
      order=order,
    )[:1],
    sids,
    fmt,
    None,
    real,
  )
  assert bool(valid.all())
  want = np.argsort(np.asarray(order), -1)
  np.testing.assert_array_equal(
    np.where(real, places, 0), np.where(real, want, 0)
  )


def test_words_alone_need_room_for_themselves(sample):
  with pytest.raises(ValueError, match='words alone.*takes up to 10 tokens'):
    sample(slots=9, words_only=True)
