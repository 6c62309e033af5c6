import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax import sharding
from gr2_jax.decode import constrain as constraints
from gr2_jax.decode import sampler
from gr2_jax.decode.items import Items
from gr2_jax.lm import decoder, logps
from gr2_jax.rl import parse
from gr2_jax.text import lengths

# As the fixture `sample` has them.
G, S, EXPLANATION = 4, 29, 8

read = jax.jit(parse.parse_ranking, static_argnums=2)


def test_the_longest_answer_fits_exactly(fmt):
  assert lengths.answer(fmt.levels, 3, EXPLANATION) == 29 <= S


@functools.partial(jax.jit, static_argnames=('config', 'fmt', 'constrain'))
def recompute(
  config, params, prompts, valid, samples, temperature, fmt, constrain
):
  """Log-probabilities as the trainer gets them: the whole tail at once."""
  model = functools.partial(decoder.Decoder(config).apply, {'params': params})
  tokens = samples.tokens
  hidden = model(prompts, valid, tokens[..., :-1], method='hidden_shared')
  logits = model(hidden, method='unembed')
  banned = constraints.banned(fmt, config.vocab_size) if constrain else None
  args = logits, tokens, temperature, samples.allowed, banned
  return logps.token_logps(*args)[0]


@pytest.mark.parametrize('constrain', [True, False])
@pytest.mark.parametrize('temperature', [1.0, 0.6])
def test_the_trainer_recomputes_the_log_probabilities(
  sample, tiny, fmt, prompts, constrain, temperature
):
  samples = sample(3, temperature, constrain)
  again = recompute(
    tiny.config, tiny.params, *prompts, samples, temperature, fmt, constrain
  )
  # float32: the same sums in another order; logits are of the size of 10.
  gap = jnp.where(samples.mask, again - samples.logps, 0.0)
  assert float(jnp.abs(gap).max()) < 2e-4
  assert float(samples.logps.min()) < -0.5
  assert not np.asarray(samples.logps)[~np.asarray(samples.mask)].any()


def test_masks_hold_the_eos_and_nothing_after_it(sample, fmt):
  for constrain in (True, False):
    samples = sample(1, constrain=constrain)
    tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
    for row, live in zip(
      tokens.reshape(-1, S), mask.reshape(-1, S), strict=True
    ):
      ends = np.flatnonzero(row == fmt.eos)
      length = ends[0] + 1 if len(ends) else S
      assert live.tolist() == [True] * length + [False] * (S - length)
      assert (row[length:] == fmt.pad).all()


@pytest.mark.slow
def test_padding_may_be_the_end_token(
  tiny, fmt, prompts, lists, citable, sample
):
  """Pretrained models often have no padding token of their own."""
  same = dataclasses.replace(fmt, pad=fmt.eos)
  again = sampler.sample(
    tiny.config,
    tiny.params,
    *prompts,
    jax.random.key(1),
    num_samples=G,
    max_new_tokens=S,
    temperature=jnp.float32(1.0),
    fmt=same,
    items=Items(*lists, *citable),
    constrain=False,
    explanation_tokens=EXPLANATION,
  )
  samples = sample(1, constrain=False)
  np.testing.assert_array_equal(again.mask, samples.mask)
  want = np.where(samples.mask, samples.tokens, fmt.eos)
  np.testing.assert_array_equal(again.tokens, want)
  assert not np.asarray(samples.mask).all()


def test_pad_may_be_drawn_as_a_token_and_stays_in_the_mask(sample, fmt):
  samples = sample(2, 3.0, constrain=False)
  tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
  assert ((tokens == fmt.pad) & mask).any()


def test_greedy_equals_the_argmax_of_the_full_forward(sample, tiny, prompts):
  samples = sample(0, 0.0, constrain=False)
  tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
  assert (tokens == tokens[:, :1]).all(), 'all rollouts of a prompt are equal'
  for prompt, valid, answer, live in zip(
    *prompts, tokens[:, 0], mask[:, 0], strict=True
  ):
    row = np.asarray(prompt)[np.asarray(valid)]
    full = np.concatenate([row, answer[live]])
    padded = np.zeros((1, 8 + S), np.int32)
    padded[0, : len(full)] = full
    logits = np.asarray(tiny.forward(padded))[0]
    best = logits[len(row) - 1 : len(full) - 1].argmax(-1)
    np.testing.assert_array_equal(best, answer[live])


def test_greedy_log_probabilities_are_those_at_temperature_one(
  sample, tiny, fmt, prompts
):
  samples = sample(0, 0.0)
  again = recompute(tiny.config, tiny.params, *prompts, samples, 1.0, fmt, True)
  gap = jnp.where(samples.mask, again - samples.logps, 0.0)
  assert float(jnp.abs(gap).max()) < 2e-4


def test_first_tokens_follow_the_model(tiny, fmt, prompts, lists, citable):
  """The share of each first token against its probability."""
  group = 4096
  samples = sampler.sample(
    tiny.config,
    tiny.params,
    prompts[0][:1],
    prompts[1][:1],
    jax.random.key(0),
    num_samples=group,
    max_new_tokens=1,
    temperature=jnp.float32(2.0),
    fmt=fmt,
    items=Items(*(x[:1] for x in (*lists, *citable))),
    constrain=False,
    explanation_tokens=0,
  )
  logits = tiny.forward(prompts[0][:1])[0, -1]
  want = np.asarray(jax.nn.softmax(logits / 2.0))
  got = np.bincount(np.asarray(samples.tokens)[0, :, 0], minlength=64) / group
  # Five standard errors of each share, and the key is fixed.
  assert (np.abs(got - want) < 5 * np.sqrt(want / group) + 1e-3).all()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('temperature', [0.0, 1.0, 4.0])
def test_a_constrained_answer_is_a_permutation_whatever_the_weights(
  sample, remake, fmt, lists, seed, temperature
):
  samples = sample(seed, temperature, params=remake(seed))
  positions, valid = read(
    samples.tokens, lists[0][:, None], fmt, samples.mask, lists[1][:, None]
  )
  assert bool(valid.all())
  assert np.asarray(samples.mask).any(-1).all()
  assert (np.sort(np.asarray(positions)[0], -1) == np.arange(3)[None]).all()


def test_allowed_sets_hold_what_was_drawn(sample):
  samples = sample(5)
  tokens, allowed = np.asarray(samples.tokens), np.asarray(samples.allowed)
  bound = (allowed >= 0).any(-1)
  assert (allowed == tokens[..., None]).any(-1)[bound].all()
  forced = (allowed >= 0).sum(-1) == 1
  assert not np.asarray(samples.logps)[forced].any()


def test_keys_make_the_difference(sample):
  one, same, other = sample(7), sample(7), sample(8)
  np.testing.assert_array_equal(one.tokens, same.tokens)
  assert (np.asarray(one.tokens) != np.asarray(other.tokens)).any()
  rows = np.asarray(one.tokens)
  assert (rows[:, :1] != rows[:, 1:]).any(), 'rollouts differ from each other'


def test_an_empty_prompt_pads_the_batch(
  tiny, fmt, prompts, lists, citable, sample
):
  valid = prompts[1].at[1].set(False)
  samples = sampler.sample(
    tiny.config,
    tiny.params,
    prompts[0],
    valid,
    jax.random.key(0),
    num_samples=G,
    max_new_tokens=S,
    temperature=jnp.float32(1.0),
    fmt=fmt,
    items=Items(*lists, *citable),
    constrain=True,
    explanation_tokens=EXPLANATION,
  )
  assert not samples.mask[1].any()
  whole = sample(0)
  np.testing.assert_array_equal(samples.tokens[0], whole.tokens[0])


def test_one_compilation_a_bucket_and_an_early_exit(
  tiny, fmt, lists, citable, monkeypatch
):
  """Counts traces, and at run time the steps of the loop."""
  traces, steps = [], []
  step = sampler.Run.step

  def counted_step(self, loop):
    jax.debug.callback(lambda: steps.append(1))
    return step(self, loop)

  def counted(*args, **kwargs):
    traces.append(1)
    return sampler.sample.__wrapped__(*args, **kwargs)

  monkeypatch.setattr(sampler.Run, 'step', counted_step)
  names = 'num_samples', 'max_new_tokens', 'fmt', 'constrain'
  names = (*names, 'explanation_tokens')
  run = jax.jit(counted, static_argnums=0, static_argnames=names)
  rng = np.random.default_rng(0)
  for length in (6, 8, 6, 8):
    for temperature in (0.0, 0.5, 1.0):
      steps.clear()
      samples = run(
        tiny.config,
        tiny.params,
        jnp.asarray(rng.integers(3, 60, (4, length)), jnp.int32),
        jnp.ones((4, length), bool),
        jax.random.key(length),
        num_samples=2,
        max_new_tokens=40,
        temperature=jnp.float32(temperature),
        fmt=fmt,
        items=Items(*lists, *citable),
        constrain=True,
        explanation_tokens=0,
      )
      longest = int(samples.mask.sum(-1).max())
      jax.effects_barrier()
      assert longest == 21 and len(steps) == 20
  assert len(traces) == 2


def test_eight_devices_sample_what_one_does(
  tiny, fmt, prompts, lists, citable, sample, mesh8
):
  one = sample(4)
  _, shardings = sharding.param_shardings(
    decoder.init_fn(tiny.config),
    mesh8,
    sharding.DECODE_RULES,
    jax.random.key(0),
  )
  params = sharding.reshard(tiny.params, shardings)
  given = (*prompts, *lists, *citable)
  tokens, valid, *named = sharding.shard_batch(mesh8, given)
  with sharding.use(mesh8, sharding.DECODE_RULES):
    eight = sampler.sample(
      tiny.config,
      params,
      tokens,
      valid,
      jax.random.key(4),
      num_samples=G,
      max_new_tokens=S,
      temperature=jnp.float32(1.0),
      fmt=fmt,
      items=Items(*named),
      constrain=True,
      explanation_tokens=EXPLANATION,
    )
  np.testing.assert_array_equal(one.tokens, eight.tokens)
  np.testing.assert_array_equal(one.mask, eight.mask)
  # float32 sums in another order, logits of the size of 10.
  np.testing.assert_allclose(one.logps, eight.logps, atol=2e-4)


def test_an_answer_that_does_not_fit_is_an_error(sample):
  with pytest.raises(ValueError, match='takes up to 29 tokens.*=28'):
    sample(slots=28)
