"""Equality with TRL's `loss_type='dapo'`, computed by its own trainer.

Runs where TRL is installed; tests/README.md has the command.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gr2_jax.lm import hf
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl import dapo, groups, objective
from gr2_jax.rl.config import RLConfig
from launch.bench import tasks

pytest.importorskip('trl')
torch = pytest.importorskip('torch')
from launch.bench.peers import trl_trainer  # noqa: E402  (it imports TRL)

# What TRL and transformers say of each other is not ours to fix.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

TASK = tasks.Task(
  LMConfig(
    vocab_size=128, width=32, layers=2, heads=4, kv_heads=2, head_dim=8,
    mlp_dim=64,
  ),
  prompt=12, new=22, queries=4, group=4, candidates=3,
)  # fmt: skip
Q, G, T = TASK.queries, TASK.group, TASK.new


def _trainer(directory, low, high):
  """Returns TRL's trainer as it is within an update on the whole batch."""
  made = trl_trainer.make(
    TASK, 'float32', str(directory), epsilon=low, epsilon_high=high
  )
  made.model.train()
  made.current_gradient_accumulation_steps = 1
  return made


def _numbers(seed):
  """Returns log-probs, old ones, advantages and a mask of unequal lengths."""
  rng = np.random.default_rng(seed)
  old = -rng.exponential(2.0, (Q, G, T)).astype(np.float32)
  logps = old + rng.normal(0, 0.3, old.shape).astype(np.float32)
  advantages = rng.normal(size=(Q, G)).astype(np.float32)
  lengths = rng.integers(1, T + 1, (Q, G, 1))
  return logps, old, advantages, np.arange(T) < lengths


def _batch(old, advantages, mask, prompt, valid, tokens):
  """Returns arrays [Q, G, ...] as TRL keeps them: a row for each answer."""
  rows = lambda x: torch.tensor(np.asarray(x).reshape(Q * G, *x.shape[2:]))
  return {
    'prompt_ids': rows(prompt).long(),
    'prompt_mask': rows(valid).long(),
    'completion_ids': rows(tokens).long(),
    'completion_mask': rows(mask).long(),
    'advantages': rows(advantages),
    'old_per_token_logps': rows(old),
    # It divides by the tokens of a rollout over the updates on it: here the
    # update has them all.
    'num_items_in_batch': torch.tensor(mask.sum() * trl_trainer.UPDATES),
  }


@pytest.mark.parametrize('low, high', [(0.2, 0.28), (0.1, 0.4), (0.3, 0.05)])
def test_loss_and_gradients_of_the_same_logps(tmp_path, low, high):
  made = _trainer(tmp_path, low, high)
  for seed in range(5):
    logps, old, advantages, mask = _numbers(seed)
    leaf = torch.tensor(logps.reshape(Q * G, T), requires_grad=True)
    made._get_per_token_logps_and_entropies = lambda *_, leaf=leaf, **__: (
      leaf, torch.zeros_like(leaf), None,
    )  # fmt: skip
    words = np.ones((Q, G, T), int)
    theirs = made._compute_loss(
      made.model, _batch(old, advantages, mask, words, words, words)
    )
    theirs.backward()

    def loss(logps, old=old, advantages=advantages, mask=mask):
      total, count, metrics = dapo.dapo_loss(
        logps, old, advantages, mask, eps_low=low, eps_high=high
      )
      return total / count, metrics

    (ours, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(logps)
    # Float32 on both sides: means of at most 352 terms of order one, in
    # another order; gradients are single terms.
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-5, atol=1e-6)
    expected = leaf.grad.numpy().reshape(Q, G, T)
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-9)
    clipped, count = metrics['clip_fraction']
    share = made._metrics['train']['clip_ratio/region_mean'][-1]
    assert 0.1 < share == pytest.approx(float(clipped / count), abs=1e-6)
    print(
      f'eps {low} {high}, seed {seed}: loss {float(ours):.7f} and '
      f'{theirs.item():.7f}, clipped {share:.4f}, largest difference of a '
      f'gradient {np.abs(gradients - expected).max():.1e} of '
      f'{np.abs(expected).max():.1e}'
    )


def _groups(old, advantages, mask, prompt, valid, tokens):
  return groups.Groups(
    prompt=jnp.asarray(prompt[:, 0]),
    prompt_valid=jnp.asarray(valid[:, 0]),
    tokens=jnp.asarray(tokens),
    sampler_logps=jnp.asarray(old),
    old_logps=jnp.asarray(old),
    mask=jnp.asarray(mask),
    allowed=jnp.full((Q, G, T, 1), -1),
    advantages=jnp.asarray(advantages),
    weight=jnp.ones(Q),
    age=jnp.zeros(Q, jnp.int32),
  )


def test_loss_and_gradients_of_the_same_model(tmp_path, mesh1):
  """Prompts of unequal lengths, padded left by TRL and right by us."""
  made = _trainer(tmp_path, 0.2, 0.28)
  made.model.save_pretrained(tmp_path / 'model')
  config, params = hf.load(tmp_path / 'model', mesh1)
  _, noise, advantages, mask = _numbers(0)
  rng = np.random.default_rng(1)
  tokens = rng.integers(8, 128, (Q, G, T))
  length = np.array([12, 7, 12, 3])[:, None, None]
  right = np.broadcast_to(np.arange(12) < length, (Q, G, 12))
  left = right[..., ::-1]
  words = rng.integers(8, 128, (Q, 1, 12)) + np.zeros((1, G, 1), int)
  prompt_right, prompt_left = np.zeros_like(words), np.zeros_like(words)
  prompt_right[right] = prompt_left[left] = words[right]
  # Old log-probs at a random distance: about those of a random model.
  old = -np.log(128) + 0.1 * (noise - noise.mean())
  old = old.astype(np.float32)

  theirs = made._compute_loss(
    made.model, _batch(old, advantages, mask, prompt_left, left, tokens)
  )
  theirs.backward()
  rl = RLConfig(
    steps=1,
    max_new_tokens=T,
    explanation_tokens=4,
    constrain=False,
    credit='answer',
  )
  loss = objective.make_loss(config, rl, TASK.format)
  batch = _groups(old, advantages, mask, prompt_right, right, tokens)

  @jax.jit
  def mean(params):
    total, count, _ = loss(params, batch)
    return total / count

  ours, gradients = jax.value_and_grad(mean)(params)
  # Of all parameters: the norm of their gradients.
  norm = optax.tree.norm(gradients)
  expected = sum((p.grad**2).sum() for p in made.model.parameters()) ** 0.5
  # The log-probs of two models, in float32, differ by 1e-6 or so.
  np.testing.assert_allclose(ours, theirs.item(), rtol=1e-4)
  np.testing.assert_allclose(norm, expected.item(), rtol=1e-4)
  print(
    f'one model: loss {float(ours):.7f} and {theirs.item():.7f}, norm of the '
    f'gradient {float(norm):.7f} and {expected.item():.7f}'
  )
