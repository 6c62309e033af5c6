"""The programs of a config, from shapes alone: to be compiled, not run.

Each comes from the functions that run it: mid-training's step (SFT's is the
same program on other rows), RL's update, the sampler's prefill and one step of
its loop. The mesh may consist of devices that are not there. The step of
decoding is a program of its own, whose arguments have the loop's shardings.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gr2_jax import config as config_lib
from gr2_jax import sharding
from gr2_jax.aot import plan as plan_lib
from gr2_jax.aot import roofline
from gr2_jax.decode import cache, parts, sampler
from gr2_jax.decode import items as items_lib
from gr2_jax.lm import attention, decoder, flops, tables, tails
from gr2_jax.lm.config import LMConfig
from gr2_jax.rl import groups, trainer
from gr2_jax.run import phase as phase_lib
from gr2_jax.run import pretrained, training
from gr2_jax.stages import midtraining
from gr2_jax.train import state

NAMES = ('train', 'update', 'prefill', 'decode')


@dataclasses.dataclass(frozen=True)
class Program:
  """One program.

  Attributes:
    lower: gives what is to be compiled; call it inside of no mesh.
    held: its arguments by what they are: 'parameters', 'optimiser', 'cache';
      trees of shapes with shardings.
    made: its results alike, where they do not take the place of arguments.
    work: what it has to do.
    size: of its batch, in words.
  """

  lower: Callable[[], jax.stages.Lowered]
  held: dict[str, Any]
  made: dict[str, Any]
  work: roofline.Work
  size: str


def make(name: str, plan: plan_lib.Plan) -> Program:
  """Makes a program of `NAMES`.

  Raises:
    ValueError: no such program, or sizes that do not fit the mesh.
  """
  makers = {
    'train': _train,
    'update': _update,
    'prefill': _prefill,
    'decode': _decode,
  }
  if name not in makers:
    raise ValueError(f'No program {name!r}; the programs are {list(makers)}.')
  return makers[name](plan)


def _train(plan: plan_lib.Plan) -> Program:
  cfg = config_lib.build(midtraining.MidtrainConfig, plan.config.midtrain)
  phase = cfg.all
  names = sorted(name for name, weight in cfg.weights.items() if weight > 0)
  trainable = pretrained.trainable(plan.model, plan.vocab)
  tx, step = training.make_step(phase, plan.model, names, trainable)
  batch = plan.split(phase_lib.example(phase, names))
  parts = sharding.batch_parts(plan.mesh) * phase.microbatches
  if phase.batch_size % parts:
    raise ValueError(
      f'midtrain.all.batch_size = {phase.batch_size} rows do not divide by '
      f'{parts}, the devices that split a batch times microbatches: make it a '
      'multiple.'
    )
  params = plan.params(plan.model, sharding.TRAIN_RULES)
  start = state.abstract(params, tx, plan.mesh)
  rows, length = phase.batch_size, phase.length

  def lower() -> jax.stages.Lowered:
    with sharding.use(plan.mesh, sharding.TRAIN_RULES):
      return step.lower(start, batch)

  return Program(
    lower=lower,
    held={'parameters': start.params, 'optimiser': start.opt_state},
    made={},
    work=_learning(
      plan.model,
      tokens=rows * length,
      pairs=rows * flops.causal_keys(length),
      scored=rows * length,
    ),
    size=f'{rows} rows of {length}',
  )


def _learning(
  model: LMConfig, tokens: float, pairs: float, scored: float
) -> roofline.Work:
  """Returns the work of an update, its logits computed twice."""
  blocks = flops.layers(model, tokens, pairs)
  logits = flops.unembedding(model, scored)
  passes = flops.passes(model)
  return roofline.Work(
    flops=passes * (blocks + logits),
    executed=(passes + model.remat) * blocks + (passes + 1) * logits,
  )


def _update(plan: plan_lib.Plan) -> Program:
  cfg = plan.rl
  trainable = pretrained.trainable(plan.model, plan.vocab)
  reference = plan.model if cfg.kl else None
  tx, update = trainer.make_update(
    plan.model, cfg, plan.vocab.answer_format(), trainable, reference
  )
  params = plan.params(plan.model, sharding.TRAIN_RULES)
  start = state.abstract(params, tx, plan.mesh)
  count = cfg.prompts_per_step // cfg.updates_per_rollout
  size, prompt, slots = cfg.group_size, plan.prompt_length, cfg.max_new_tokens
  make = functools.partial(groups.empty, count, size, slots, plan.ids, prompt)
  batch = plan.split(jax.eval_shape(make))

  def lower() -> jax.stages.Lowered:
    with sharding.use(plan.mesh, sharding.TRAIN_RULES):
      return update.lower(start, batch, *(params,) * bool(cfg.kl))

  # The last token of an answer is predicted, but predicts nothing.
  tail = slots - 1
  pairs = flops.causal_keys(prompt) + size * (
    tail * prompt + flops.causal_keys(tail)
  )
  return Program(
    lower=lower,
    held={'parameters': start.params, 'optimiser': start.opt_state},
    made={},
    work=_learning(
      plan.model,
      tokens=count * (prompt + size * tail),
      pairs=count * pairs,
      scored=count * size * slots,
    ),
    size=f'{count} prompts of {prompt}, {size} answers of {slots}',
  )


def _decoding(plan: plan_lib.Plan) -> tuple[LMConfig, Any, tuple[int, int]]:
  """Returns model, parameters and [Q, P] as rollouts have them."""
  model, _ = decoder.narrow(plan.model, {})
  wide = plan.params(plan.model, sharding.DECODE_RULES)
  shapes = jax.eval_shape(lambda x: decoder.narrow(plan.model, x)[1], wide)
  params = jax.tree.map(lambda x, y: plan_lib.like(x, y.sharding), shapes, wide)
  return model, params, (plan.rl.prompts_per_round, plan.prompt_length)


def _apply(model: LMConfig, params: Any) -> Callable:
  return functools.partial(decoder.Decoder(model).apply, {'params': params})


def _read(
  model: LMConfig, params: Any, prompts: jax.Array, valid: jax.Array
) -> cache.Prompts:
  return cache.read(_apply(model, params), prompts, valid)


def _prefill(plan: plan_lib.Plan) -> Program:
  model, params, shape = _decoding(plan)
  like = jax.ShapeDtypeStruct
  inputs = plan.split((like(shape, jnp.int32), like(shape, bool)))
  kv = jax.eval_shape(functools.partial(_read, model), params, *inputs).kv

  def lower() -> jax.stages.Lowered:
    with sharding.use(plan.mesh, sharding.DECODE_RULES):
      read = jax.jit(functools.partial(_read, model))
      return read.lower(params, *inputs)

  pairs = shape[0] * flops.causal_keys(shape[1])
  work = flops.layers(model, math.prod(shape), pairs)
  return Program(
    lower=lower,
    held={'parameters': params},
    made={'cache': plan.caches(kv, attention.PROMPT_AXES)},
    work=roofline.Work(flops=work, executed=work),
    size=f'{shape[0]} prompts of {shape[1]}',
  )


def _decode(plan: plan_lib.Plan) -> Program:
  model, params, shape = _decoding(plan)
  cfg, slots = plan.rl, plan.rl.max_new_tokens
  run = functools.partial(_run, plan, model)
  read, loop, others = _loop_inputs(plan, model, params, shape)

  def step(
    params: Any, read: cache.Prompts, loop: sampler.Loop, *others: Any
  ) -> sampler.Loop:
    return run(params, read, *others).step(loop)

  def lower() -> jax.stages.Lowered:
    # The loop's state keeps its place, as in the sampler's `while_loop`.
    same = jax.tree.map(lambda x: x.sharding, loop)
    with sharding.use(plan.mesh, sharding.DECODE_RULES):
      jitted = jax.jit(step, donate_argnums=2, out_shardings=same)
      return jitted.lower(params, read, loop, *others)

  every = {**params, 'listed': others[0]}
  held = {'parameters': every, 'cache': (read.kv, loop.tail)}
  rows = shape[0] * cfg.group_size
  work = flops.layers(model, rows, rows * (shape[1] + slots))
  work += flops.unembedding(model, rows)
  streamed = plan_lib.chip_bytes(held)
  if not model.tie_embeddings:
    # Of the table that tokens are looked up in, only a row a token.
    streamed -= plan_lib.chip_bytes(params['embedding'])
  return Program(
    lower=lower,
    held=held,
    made={},
    work=roofline.Work(flops=work, executed=work, streamed=streamed),
    size=f'{shape[0]} prompts of {shape[1]}, {cfg.group_size} answers of '
    f'{slots}',
  )


def _run(
  plan: plan_lib.Plan,
  model: LMConfig,
  params: Any,
  prompts: cache.Prompts,
  *others: jax.Array,
) -> sampler.Run:
  """Returns what `sampler.sample` runs; `listed` is taken before its loop."""
  listed, key, temperature, *items = others
  cfg, fmt = plan.rl, plan.vocab.answer_format()
  served = parts.served(model, fmt, cfg.constrain)
  rows = tables.output(model, params), listed
  return sampler.Run(
    model=_apply(model, params),
    tables=tuple(zip(served, rows, strict=False)),
    prompts=prompts,
    shape=(len(prompts.lengths), cfg.group_size, cfg.max_new_tokens),
    key=key,
    temperature=temperature,
    fmt=fmt,
    items=items_lib.Items(*items),
    constrain=cfg.constrain,
    explanation_tokens=cfg.explanation_tokens,
    filters=None,
  )


def _loop_inputs(
  plan: plan_lib.Plan, model: LMConfig, params: Any, shape: tuple[int, int]
) -> tuple[cache.Prompts, sampler.Loop, tuple]:
  """Returns what a step of the sampler reads: prompts, state and the rest."""
  like = jax.ShapeDtypeStruct
  key = jax.eval_shape(lambda: jax.random.key(0))
  table = tables.output(model, params)
  listed = len(parts.list_ids(plan.vocab.answer_format())), model.width
  others = (
    plan.whole(*listed, dtype=table.dtype),
    plan.whole(dtype=key.dtype),
    plan.whole(dtype=jnp.float32),
    *(plan.split(x) for x in plan.items(shape[0])),
  )
  read = jax.eval_shape(
    functools.partial(_read, model),
    params,
    like(shape, jnp.int32),
    like(shape, bool),
  )

  def start(params: Any, *given: Any) -> sampler.Loop:
    run = _run(plan, model, params, *given)
    return run.start(tails.empty(model, *run.shape))

  loop = jax.eval_shape(start, params, read, *others)
  read = plan.split(read.replace(kv=None)).replace(
    kv=plan.caches(read.kv, attention.PROMPT_AXES)
  )
  loop = plan.split(loop.replace(step=None, tail=None)).replace(
    step=plan.whole(dtype=jnp.int32),
    tail=plan.caches(loop.tail, attention.TAIL_AXES),
  )
  return read, loop, others
