import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gr2_jax.decode import filters, next_token

DRAWS, V = 20_000, 40
VALUES = [
  {'top_k': 5},
  {'top_p': 0.7},
  {'min_p': 0.2},
  {'top_k': 12, 'top_p': 0.8, 'min_p': 0.05},
]

draw = jax.jit(next_token.draw, static_argnames='constrain')


def distributions(kept, logits, temperature, ids, values):
  """Returns probabilities [V] without and with the filters."""
  inside = np.zeros(V, bool)
  inside[ids] = True
  tempered = np.where(inside, logits / temperature, -np.inf)
  scored = np.exp(tempered - tempered.max())
  behaviour = scored * kept(tempered, **values)
  return scored / scored.sum(), behaviour / behaviour.sum()


@pytest.mark.parametrize('values', VALUES)
@pytest.mark.parametrize('ids', [None, [3, 30, 7, 11, 25, 18, 2]])
def test_draws_and_log_probabilities_follow_the_filters(
  kept_by_sorting, values, ids
):
  temperature = 1.5
  logits = np.random.default_rng(0).normal(0, 2, V).astype(np.float32)
  allowed = np.full(8, -1, np.int32)
  if ids is not None:
    allowed[: len(ids)] = ids
  scored, behaviour = distributions(
    kept_by_sorting,
    logits,
    temperature,
    np.arange(V) if ids is None else ids,
    values,
  )
  tokens, logps, behaviour_logps = draw(
    jax.random.uniform(jax.random.key(0), (DRAWS,)),
    jnp.broadcast_to(logits, (DRAWS, V)),
    jnp.float32(temperature),
    jnp.broadcast_to(allowed, (DRAWS, 8)),
    constrain=True,
    filters=filters.make(**values),
  )
  # float32 sums of 40 terms.
  np.testing.assert_allclose(logps, np.log(scored[tokens]), atol=1e-5)
  np.testing.assert_allclose(
    behaviour_logps, np.log(behaviour[tokens]), atol=1e-5
  )
  left = behaviour > 0
  assert 1 < left.sum() < (scored > 0).sum(), 'the filter acts'
  counts = np.bincount(tokens, minlength=V)
  assert not counts[~left].any()
  want = behaviour[left] * DRAWS
  freedom = left.sum() - 1
  # Mean and five deviations of chi-square, and the key is fixed.
  bound = freedom + 5 * np.sqrt(2 * freedom)
  assert ((counts[left] - want) ** 2 / want).sum() < bound


def test_free_and_constrained_rows_mix():
  logits = jnp.broadcast_to(jnp.array([4.0, 1.0, 3.0, 2.0]), (3, 4))
  allowed = jnp.array([[-1, -1], [3, 1], [1, -1]])
  tokens, logps, behaviour = draw(
    jnp.full(3, 0.99),
    logits,
    jnp.float32(1.0),
    allowed,
    constrain=True,
    filters=filters.make(top_k=1),
  )
  assert tokens.tolist() == [0, 3, 1]
  assert behaviour.tolist() == [0, 0, 0], 'one token stays: it is certain'
  assert logps[0] < -0.1 and logps[1] < -0.1 and logps[2] == 0


@pytest.mark.parametrize('constrain', [True, False])
def test_filters_do_not_matter_where_greedy(constrain):
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(0, 2, (50, V)), jnp.float32)
  allowed = jnp.where(jnp.arange(50)[:, None] % 2 > 0, jnp.array([[9, 4]]), -1)
  allowed = allowed if constrain else jnp.full((50, 1), -1)
  common = jnp.zeros(50), logits, jnp.float32(0.0), allowed
  acting = filters.make(3, 0.5, 0.5)
  for got, want in zip(
    draw(*common, constrain=constrain, filters=acting),
    draw(*common, constrain=constrain),
    strict=True,
  ):
    np.testing.assert_array_equal(got, want)
