"""The rules that join the sections of a config, checked before a run begins.

Each takes an `experiment.Experiment`, whose sections are checked one by one
when they are made, and raises a ValueError that names settings, values and the
remedy.
"""

import math
from collections.abc import Collection, Iterator
from typing import Any

from gr2_jax.data import sources, synthetic
from gr2_jax.ranker import ranking
from gr2_jax.rl import config as rl_config
from gr2_jax.stages import rankings, sft, teachers
from gr2_jax.text import lengths, tasks


def _answers_fit(run: Any) -> None:
  need, rl = lengths.budgets(run).answer, run.rl
  if rl.max_new_tokens - rl.overlong_buffer < need:
    raise ValueError(
      f'rl.max_new_tokens = {rl.max_new_tokens} less rl.overlong_buffer = '
      f'{rl.overlong_buffer}, but an explanation of rl.explanation_tokens = '
      f'{rl.explanation_tokens} and a list of {lengths.candidates(run)} take '
      f'{need} tokens: raise rl.max_new_tokens to '
      f'{need + rl.overlong_buffer} or lower rl.explanation_tokens.'
    )
  need = lengths.budgets(run).direct
  if run.direct.steps and run.direct.max_new_tokens < need:
    raise ValueError(
      f'direct.max_new_tokens = {run.direct.max_new_tokens}, but a list of '
      f'{lengths.candidates(run)} takes {need} tokens: raise it.'
    )


def _rows_hold_answers(run: Any) -> None:
  if _is_world(run):
    # Its prompts are of one length, below the budget.
    return
  budgets = lengths.budgets(run)
  if _trains_answers(run) and run.sft.train.length < budgets.row:
    raise ValueError(
      f'sft.train.length = {run.sft.train.length}, but a prompt takes up to '
      f'{budgets.prompt} tokens (text.prompt.max_tokens = '
      f'{run.text.prompt.max_tokens} behind the history) and its answer '
      f'{budgets.answer}: raise it to {budgets.row}, or lower '
      'text.prompt.max_tokens, text.prompt.retrieval_items or '
      'rl.explanation_tokens.'
    )


def _trains_answers(run: Any) -> bool:
  return ranking.is_by_list(run) or run.sft.weights.get(sft.ANSWER, 0) > 0


def _prompts_show_lists(run: Any) -> None:
  k, shown = lengths.candidates(run), run.text.prompt.max_candidates
  if k != shown:
    name = 'data.world.k' if _is_world(run) else 'candidates.k'
    raise ValueError(
      f'{name} = {k}, but text.prompt.max_candidates = {shown}: a prompt shows '
      'a whole list; give both the same number.'
    )


def _one_explanation_budget(run: Any) -> None:
  if run.traces.explanation_tokens != run.rl.explanation_tokens:
    raise ValueError(
      f'traces.explanation_tokens = {run.traces.explanation_tokens}, but '
      f'rl.explanation_tokens = {run.rl.explanation_tokens}: what a teacher '
      'may write is what the model may write; give both the same number.'
    )


def _ranking(run: Any) -> None:
  if not ranking.is_by_list(run):
    rankings.check(run.rl, run)
    if run.sft.train.dropout and not (
      run.sft.replay and any(w > 0 for w in run.sft.weights.values())
    ):
      raise ValueError(
        f'sft.train.dropout = {run.sft.train.dropout} takes its random numbers '
        'from the text rows, of which there are none: give sft.replay and one '
        'of sft.weights more than 0, or dropout 0.'
      )
    return
  if not run.sft.weights.get(sft.ANSWER, 0):
    raise ValueError(
      f"answer.ranking = 'list', but sft.weights = {dict(run.sft.weights)} "
      f'trains no answers: give sft.weights.{sft.ANSWER} more than 0.'
    )
  if run.direct.steps and not run.rl.constrain:
    raise ValueError(
      f'direct.steps = {run.direct.steps} needs rl.constrain, which is False: '
      'nothing else keeps the explanation empty. Set direct.steps to 0, or '
      'rl.constrain to True.'
    )


def _examples_fit(run: Any) -> None:
  if _is_world(run):
    return
  given = run.sid.levels, run.text.prompt
  tasks.check(*given, run.midtrain.all.length, run.midtrain.tasks)
  first, both = run.midtrain.new_rows, run.midtrain.all
  if first.steps and first.length < both.length:
    raise ValueError(
      f'midtrain.new_rows.length = {first.length}, but examples are cut to '
      f'midtrain.all.length = {both.length}: raise the one or lower the other.'
    )
  if run.sft.weights.get(sft.NEXT_ITEM, 0) > 0:
    tasks.check(*given, run.sft.train.length, run.midtrain.tasks)


def _folds(run: Any) -> None:
  if run.candidates.folds:
    return
  for name, value, wanted in (
    ('rl.lists', run.rl.lists, 'folds'),
    ('candidates.fold_use', run.candidates.fold_use, 'sft'),
  ):
    if value == wanted:
      raise ValueError(
        f'{name} = {value!r} needs lists of folds, but candidates.folds is 0: '
        'give 2 or more, or another value.'
      )


def _world(run: Any) -> None:
  if not _is_world(run):
    return
  asked = (run.sid.levels, run.sid.codes)
  known = (synthetic.LEVELS, run.data.world.codes)
  if asked != known:
    raise ValueError(
      f'sid.levels, sid.codes = {asked}: set them to the {known[0]} and '
      f'{known[1]} of this world.'
    )


def _is_world(run: Any) -> bool:
  return run.data.kind == sources.SYNTHETIC


def _teacher(run: Any) -> None:
  teachers.check(run.traces)


_RULES = (
  _world,
  _teacher,
  _one_explanation_budget,
  _prompts_show_lists,
  _ranking,
  _folds,
  _answers_fit,
  _rows_hold_answers,
  _examples_fit,
)


def check(run: Any) -> None:
  """Refuses settings that contradict each other.

  Args:
    run: an `experiment.Experiment`.

  Raises:
    ValueError: the first rule that does not hold.
  """
  for rule in _RULES:
    rule(run)


def check_batches(run: Any, parts: int, stages: Collection[str]) -> None:
  """Refuses batches that the devices cannot split, before the first stage.

  Args:
    run: an `experiment.Experiment`.
    parts: devices that split a batch (`sharding.batch_parts`).
    stages: those that are to run.

  Raises:
    ValueError: the first batch that does not divide, with a size that does.
  """
  for stage, name, rows, microbatches in _batches(run):
    multiple = math.lcm(parts, microbatches)
    if stage in stages and rows % multiple:
      raise ValueError(
        f'{name} = {rows} does not divide by the {parts} devices that split a '
        f'batch (config.mesh) and into {microbatches} micro-batches: make it a '
        f'multiple of {multiple}, or change config.mesh.'
      )
  by_list = ranking.is_by_list(run)
  if 'rl' in stages and run.rl.steps:
    rl_config.check_mesh(run.rl, parts, 'list' if by_list else 'likelihood')
  if 'direct' in stages and run.direct.steps:
    rl_config.check_mesh(run.rl, parts, 'list')


def _batches(run: Any) -> Iterator[tuple[str, str, int, int]]:
  """Yields stage, name, rows and micro-batches of what trains before RL."""
  if not _is_world(run):
    if run.sid.quantiser == 'rqvae':
      yield 'sid', 'sid.batch_size', run.sid.batch_size, 1
    for name in ('new_rows', 'all'):
      phase = getattr(run.midtrain, name)
      if phase.steps:
        yield (
          *('midtrain', f'midtrain.{name}.batch_size'),
          *(phase.batch_size, phase.microbatches),
        )
  phase, by_list = run.sft.train, ranking.is_by_list(run)
  if by_list or (run.sft.replay and any(run.sft.weights.values())):
    yield 'sft', 'sft.train.batch_size', phase.batch_size, phase.microbatches
  if not by_list:
    for name in ('lists', 'explained', 'distilled'):
      yield 'sft', f'sft.{name}', getattr(run.sft, name), phase.microbatches
