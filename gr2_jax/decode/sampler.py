"""Samples answers: one prefill a prompt, then one while_loop for all rollouts.

The G rollouts of a prompt share its cache and keep short tails of their own.
Log-probabilities come from `lm.logps.token_logps`, which the trainer uses too,
under the same temperature and constraint. Filters (top-k, top-p, min-p) are for
sampling from a finished model: the trainer knows none.

Letters: Q prompts, G rollouts, P prompt tokens, S cache slots, K candidates,
L levels, A allowed ids.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gr2_jax.decode import cache, next_token, parts
from gr2_jax.decode import constrain as constraints
from gr2_jax.decode import filters as filters_lib
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, tails
from gr2_jax.text import answer


@flax.struct.dataclass
class Samples:
  """What was sampled.

  Attributes:
    tokens: int32 [Q, G, S], without the prompt; `pad` after the end.
    logps: float32 [Q, G, S], log-probability of each token under the tempered
      and constrained distribution, which the trainer computes again; 0 after
      the end.
    behaviour_logps: float32 [Q, G, S], the same under the distribution it was
      drawn from: the filters' too. Equal to `logps` where none acts.
    mask: bool [Q, G, S], the tokens that were generated, `eos` included.
    allowed: int32 [Q, G, S, A], the ids each position could take, padded with
      -1; a row of all -1 was free. A = max(K, 1).
  """

  tokens: jax.Array
  logps: jax.Array
  behaviour_logps: jax.Array
  mask: jax.Array
  allowed: jax.Array


@flax.struct.dataclass
class Loop:
  """State of the loop.

  Attributes:
    step: int32 scalar, tokens written so far.
    done: bool [Q, G], rollouts that wrote `eos`, or whose prompt is empty.
    tail: the rollouts' caches, `step - 1` slots filled.
    machine: where each rollout stands in its answer.
    samples: what was written so far; without `behaviour_logps` where there are
      no filters.
  """

  step: jax.Array
  done: jax.Array
  tail: Any
  machine: constraints.State
  samples: Samples


@functools.partial(
  jax.jit,
  static_argnames=(
    'config',
    'num_samples',
    'max_new_tokens',
    'fmt',
    'constrain',
    'explanation_tokens',
  ),
)
def sample(
  config: lm_config.LMConfig,
  params: Any,
  prompts: jax.Array,
  valid: jax.Array,
  key: jax.Array,
  num_samples: int,
  max_new_tokens: int,
  temperature: jax.Array | float,
  fmt: answer.AnswerFormat,
  candidate_sids: jax.Array,
  candidate_mask: jax.Array,
  constrain: bool,
  explanation_tokens: int,
  filters: filters_lib.Filters | None = None,
) -> Samples:
  """Samples G answers a prompt; jitted.

  Args:
    config: shape of the model.
    params: its parameters.
    prompts: int32 [Q, P], padded on the right. A prompt without any token pads
      the batch: its rollouts are empty.
    valid: bool [Q, P], the tokens of each prompt.
    key: for this call, the step folded in outside; or [Q], one a prompt.
    num_samples: G.
    max_new_tokens: S.
    temperature: a traced scalar; 0 is greedy (of equal logits the first wins,
      in the list by pre-rank order), with the `logps` of temperature 1.
    fmt: the answer format.
    candidate_sids: int32 [Q, K, L] codes in pre-rank order.
    candidate_mask: bool [Q, K], False for the padding of short lists.
    constrain: whether the list can only become a permutation of the candidates.
    explanation_tokens: most tokens of an explanation where `constrain` holds.
    filters: traced values of top-k, top-p and min-p, see `next_token.draw`.

  Returns:
    The samples.

  Raises:
    ValueError: a constrained answer does not fit `max_new_tokens`.
  """
  if constrain:
    budget = max_new_tokens, explanation_tokens
    constraints.check_length(fmt, candidate_sids.shape[1], *budget)
  model = functools.partial(decoder.Decoder(config).apply, {'params': params})
  run = Run(
    model=model,
    tables=parts.with_rows(config, fmt, constrain, params),
    prompts=cache.read(model, prompts, valid),
    shape=(prompts.shape[0], num_samples, max_new_tokens),
    key=key,
    temperature=jnp.asarray(temperature, jnp.float32),
    fmt=fmt,
    candidates=(candidate_sids, candidate_mask),
    constrain=constrain,
    explanation_tokens=explanation_tokens,
    filters=filters,
  )
  return run.whole(tails.empty(config, *run.shape))


@dataclasses.dataclass(frozen=True)
class Run:
  """What stays the same while the loop runs; see `sample`.

  Attributes:
    model: `Decoder.apply` with the parameters.
    tables: the whole vocabulary, and with the constraint the list's part of
      it, with their rows.
    prompts: that were read.
    shape: (Q, G, S).
    key: of this call, or of each prompt.
    temperature: float32 scalar.
    fmt: the answer format.
    candidates: codes [Q, K, L] and mask [Q, K].
    constrain: whether the state machine is on.
    explanation_tokens: most tokens of an explanation.
    filters: of the draws, or None.
  """

  model: Any
  tables: tuple[tuple[parts.Part, jax.Array], ...]
  prompts: cache.Prompts
  shape: tuple[int, int, int]
  key: jax.Array
  temperature: jax.Array
  fmt: answer.AnswerFormat
  candidates: tuple[jax.Array, jax.Array]
  constrain: bool
  explanation_tokens: int
  filters: filters_lib.Filters | None

  def whole(self, tail: Any) -> Samples:
    """Writes all answers; `tail` is an empty cache."""
    loop = self.write(self.start(tail), self.prompts.last)
    samples = jax.lax.while_loop(self.unfinished, self.step, loop).samples
    if self.filters is None:
      samples = samples.replace(behaviour_logps=samples.logps)
    return samples

  def start(self, tail: Any) -> Loop:
    """Returns the state before the first token."""
    group, slots = self.shape[1:]
    sids, mask = self.candidates
    ids = max(sids.shape[1], 1)
    zeros = jnp.zeros(self.shape, jnp.float32)
    return Loop(
      step=jnp.int32(0),
      done=jnp.broadcast_to(self.prompts.lengths[:, None] == 0, self.shape[:2]),
      tail=tail,
      machine=constraints.start(mask, group),
      samples=Samples(
        tokens=jnp.full(self.shape, self.fmt.pad, jnp.int32),
        logps=zeros,
        behaviour_logps=self._if_filtered(zeros),
        mask=jnp.zeros(self.shape, bool),
        allowed=jnp.full((*self.shape, ids), -1, jnp.int32),
      ),
    )

  def _if_filtered(self, x: jax.Array) -> jax.Array | None:
    """Spares the loop a second array of log-probs where both are one."""
    return None if self.filters is None else x

  def unfinished(self, loop: Loop) -> jax.Array:
    """Says whether any rollout goes on: the early exit."""
    return (loop.step < self.shape[2]) & ~loop.done.all()

  def step(self, loop: Loop) -> Loop:
    """Reads the newest tokens and writes the next ones."""
    index = loop.step - 1
    tokens = jax.lax.dynamic_index_in_dim(
      loop.samples.tokens, index, axis=2, keepdims=False
    )
    hidden, tail = cache.extend(
      self.model, self.prompts, tokens, loop.tail, index
    )
    return self.write(loop.replace(tail=tail), hidden)

  def write(self, loop: Loop, hidden: jax.Array) -> Loop:
    """Draws a token of each rollout from its state [Q, G or 1, D]."""
    shape = self.shape[:2]
    uniform = next_token.uniform(self.key, loop.step, shape)
    allowed = jnp.full((*shape, loop.samples.allowed.shape[-1]), -1, jnp.int32)
    if not self.constrain:
      drawn = self._draw(self.tables[0], uniform, hidden, allowed)
      return self._record(loop, *drawn, allowed)
    allowed = constraints.allowed(
      loop.machine,
      loop.step,
      *self.candidates,
      self.fmt,
      self.explanation_tokens,
    )
    drawn = jax.lax.cond(
      loop.step < parts.begin(self.explanation_tokens),
      *(functools.partial(self._draw, table) for table in self.tables),
      uniform,
      hidden,
      allowed,
    )
    return self._record(loop, *drawn, allowed)

  def _draw(
    self,
    table: tuple[parts.Part, jax.Array],
    uniform: jax.Array,
    hidden: jax.Array,
    allowed: jax.Array,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws from a part of the vocabulary; see `next_token.draw`."""
    part, rows = table
    logits = part.logits(rows, hidden)
    tokens, *scores = next_token.draw(
      uniform,
      jnp.broadcast_to(logits, (*self.shape[:2], logits.shape[-1])),
      self.temperature,
      part.inside(allowed),
      self.constrain,
      self.filters,
    )
    return part.outside(tokens), *scores

  def _record(
    self,
    loop: Loop,
    tokens: jax.Array,
    scores: jax.Array,
    behaviour: jax.Array,
    allowed: jax.Array,
  ) -> Loop:
    """Writes what was drawn, `pad` for the rollouts that had ended."""
    alive = ~loop.done
    tokens = jnp.where(alive, tokens, self.fmt.pad)
    new = Samples(
      tokens=tokens,
      logps=jnp.where(alive, scores, 0.0),
      behaviour_logps=self._if_filtered(jnp.where(alive, behaviour, 0.0)),
      mask=alive,
      allowed=jnp.where(alive[..., None], allowed, -1),
    )
    put = lambda old, x: jax.lax.dynamic_update_index_in_dim(
      old, x, loop.step, axis=2
    )
    machine = loop.machine
    if self.constrain:
      machine = constraints.advance(machine, tokens, *self.candidates, self.fmt)
    return Loop(
      step=loop.step + 1,
      done=loop.done | self.fmt.ends(tokens),
      tail=loop.tail,
      machine=machine,
      samples=jax.tree.map(put, loop.samples, new),
    )
