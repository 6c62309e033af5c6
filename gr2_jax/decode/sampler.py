"""Samples answers: one prefill a prompt, then one while_loop for all rollouts.

The G rollouts of a prompt share its cache and keep short tails of their own.
Log-probabilities come from `lm.logps.token_logps`, which the trainer uses too,
under the same temperature and constraint. Filters (top-k, top-p, min-p) are for
sampling from a finished model: the trainer knows none. Each prompt has a key
and a row may end with any of several tokens: the answers of a local teacher
must not depend on what a resumed run batches together.

Letters: Q prompts, G rollouts, P prompt tokens, S cache slots, K candidates,
M citable items, L levels, A allowed ids.
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
from gr2_jax.decode import items as items_lib
from gr2_jax.decode.samples import Samples
from gr2_jax.lm import config as lm_config
from gr2_jax.lm import decoder, tails
from gr2_jax.text import answer


@flax.struct.dataclass
class Loop:
  """State of the loop.

  Attributes:
    step: int32 scalar, tokens written so far.
    done: bool [Q, G], rollouts that ended, or whose prompt is empty.
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
    'words_only',
  ),
)
def sample(
  config: lm_config.LMConfig,
  params: Any,
  prompts: jax.Array,
  valid: jax.Array,
  key: jax.Array,
  *,
  num_samples: int,
  max_new_tokens: int,
  temperature: jax.Array | float,
  fmt: answer.AnswerFormat,
  items: items_lib.Items,
  constrain: bool,
  explanation_tokens: int,
  filters: filters_lib.Filters | None = None,
  words_only: bool = False,
) -> Samples:
  """Samples G answers a prompt; jitted.

  Args:
    config: shape of the model.
    params: its parameters.
    prompts: int32 [Q, P], right-padded; an empty one has empty rollouts.
    valid: bool [Q, P], the tokens of each prompt.
    key: for this call, with the step folded in; or [Q], one a prompt.
    num_samples: G.
    max_new_tokens: S.
    temperature: a scalar; 0 is greedy (of equal logits the first wins, in the
      list by pre-rank order), with the `logps` of temperature 1.
    fmt: the answer format.
    items: the candidates, and what the prompt shows.
    constrain: whether the list can only become a permutation of the candidates,
      and words can only cite the citable items.
    explanation_tokens: most tokens of words where `constrain` holds.
    filters: traced values of top-k, top-p and min-p, see `next_token.draw`.
    words_only: answers end with `top`; `ending.complete` writes the rest.

  Raises:
    ValueError: a constrained answer does not fit `max_new_tokens`.
  """
  if constrain:
    lengths = items.candidate_sids.shape[1], max_new_tokens, explanation_tokens
    constraints.check_length(fmt, *lengths, words_only)
  model = functools.partial(decoder.Decoder(config).apply, {'params': params})
  tables = parts.with_rows(config, fmt, constrain, params)
  run = Run(
    model=model,
    tables=tables,
    prompts=cache.read(model, prompts, valid),
    shape=(len(prompts), num_samples, max_new_tokens),
    key=key,
    temperature=jnp.float32(temperature),
    fmt=fmt,
    items=items,
    constrain=constrain,
    explanation_tokens=explanation_tokens,
    filters=filters,
    words_only=words_only,
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
    items: what answers may name.
    constrain: whether the state machine is on.
    explanation_tokens: most tokens of words.
    filters: of the draws, or None.
    words_only: whether answers end with `top`.
  """

  model: Any
  tables: tuple[tuple[parts.Part, jax.Array], ...]
  prompts: cache.Prompts
  shape: tuple[int, int, int]
  key: jax.Array
  temperature: jax.Array
  fmt: answer.AnswerFormat
  items: items_lib.Items
  constrain: bool
  explanation_tokens: int
  filters: filters_lib.Filters | None
  words_only: bool = False

  def whole(self, tail: Any) -> Samples:
    """Writes all answers; `tail` is an empty cache."""
    loop = self.write(self.start(tail), self.prompts.last)
    samples = jax.lax.while_loop(self.unfinished, self.step, loop).samples
    if self.filters is None:
      samples = samples.replace(behaviour_logps=samples.logps)
    return samples

  def start(self, tail: Any) -> Loop:
    """Returns the state before the first token."""
    zeros = jnp.zeros(self.shape, jnp.float32)
    return Loop(
      step=jnp.int32(0),
      done=jnp.broadcast_to(self.prompts.lengths[:, None] == 0, self.shape[:2]),
      tail=tail,
      machine=constraints.start(self.items, self.shape[1]),
      samples=Samples(
        tokens=jnp.full(self.shape, self.fmt.pad, jnp.int32),
        logps=zeros,
        behaviour_logps=self._if_filtered(zeros),
        mask=jnp.zeros(self.shape, bool),
        allowed=jnp.full((*self.shape, self.items.ids), -1, jnp.int32),
      ),
    )

  def _if_filtered(self, x: jax.Array) -> jax.Array | None:
    """Spares the loop a second array of log-probs where both are one."""
    return None if self.filters is None else x

  def unfinished(self, loop: Loop) -> jax.Array:
    """Returns whether any rollout is unfinished: the early exit."""
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
      loop.machine, loop.step, self.items, self.fmt, self.explanation_tokens
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
      constrain=self.constrain,
      filters=self.filters,
      banned=part.banned,
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
      machine = constraints.advance(machine, tokens, self.items, self.fmt)
    ended = self.fmt.ends(tokens)
    if self.words_only:
      ended |= tokens == self.fmt.top
    return Loop(
      step=loop.step + 1,
      done=loop.done | ended,
      tail=loop.tail,
      machine=machine,
      samples=jax.tree.map(put, loop.samples, new),
    )
