"""How traces are sampled, and the teacher that a config names."""

import dataclasses
from collections.abc import Callable, Mapping

import ml_collections

from gr2_jax import config as config_lib
from gr2_jax.stages import artifacts, requests, runner
from gr2_jax.teacher import (
  acceptance,
  address,
  base,
  budget,
  endpoint,
  local,
  rules,
)

RULES = 'rules'


@dataclasses.dataclass(frozen=True)
class TracesConfig:
  """How traces are sampled.

  Attributes:
    teacher: who answers: a key of `MAKERS`.
    model: which language model; '' for the rules.
    mode: 'rejection' (better on Beauty [P]) or 'targeted'.
    attempts: how often a list is asked at most [G].
    lists: at most so many lists are asked, drawn by the seed; 0 for all. With
      more, those of fewer are among them.
    explanation_tokens: budget of the words; should be the one of decoding.
    near_duplicate: similarity in (0, 1] from which on an explanation repeats an
      earlier one and is turned down (`duplicates.find`) [G]; 0 for never, as
      suits the rules, which have few wordings.
    prompt: fields of a language model's prompt; its `history_items`, the last
      items that a teacher is shown, 0 for as many as the student is, holds for
      every teacher.
    sampling: how a language model samples.
    rules: fields of `rules.RulesConfig`.
    local: fields of `local.LocalConfig`.
  """

  teacher: str = RULES
  model: str = ''
  mode: str = acceptance.REJECTION
  attempts: int = 8
  lists: int = 0
  explanation_tokens: int = 40
  near_duplicate: float = 0.0
  prompt: Mapping = dataclasses.field(default_factory=dict)
  sampling: Mapping = dataclasses.field(default_factory=dict)
  rules: Mapping = dataclasses.field(default_factory=dict)
  local: Mapping = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    modes = (acceptance.REJECTION, acceptance.TARGETED)
    if self.mode not in modes:
      raise ValueError(f'traces.mode is {self.mode!r}; use one of {modes}.')
    if not 0 <= self.near_duplicate <= 1:
      raise ValueError(
        f'traces.near_duplicate = {self.near_duplicate} must lie in [0, 1].'
      )
    if self.lists < 0:
      raise ValueError(f'traces.lists is {self.lists}; give 0 or more.')


def history_items(cfg: TracesConfig, store: artifacts.Artifacts) -> int:
  """Returns how many of a user's last items a teacher is shown."""
  return cfg.prompt.get('history_items') or store.prompt.history_items


def make(
  config: ml_collections.ConfigDict,
  store: artifacts.Artifacts,
  context: runner.Context,
) -> base.Teacher:
  """Makes the teacher of `config.traces`.

  Args:
    config: of the run.
    store: the run's artifacts.
    context: of the stage.

  Raises:
    ValueError: there is no teacher of that name.
  """
  cfg = config_lib.build(TracesConfig, config.traces)
  if cfg.teacher not in MAKERS:
    raise ValueError(
      f'traces.teacher is {cfg.teacher!r}; use one of {sorted(MAKERS)}.'
    )
  return MAKERS[cfg.teacher](config, cfg, store, context)


def _rules(config, cfg, store, context) -> rules.RulesTeacher:
  del config, context
  return rules.RulesTeacher(
    store.dataset,
    store.splits,
    store.sids,
    store.vocab,
    history_items(cfg, store),
    cfg.explanation_tokens,
    config_lib.build(rules.RulesConfig, cfg.rules),
  )


def _endpoint(config, cfg, store, context) -> endpoint.EndpointTeacher:
  answers = context.directory / 'answers'
  return endpoint.EndpointTeacher(
    requests.make_writer(store),
    requests.make_sampling(config.traces),
    config_lib.build(address.EndpointConfig, config.endpoint),
    cfg.model,
    budget.spent(answers, cfg.model),
  )


def _local(config, cfg, store, context) -> local.LocalTeacher:
  return local.load(
    cfg.model,
    context.mesh,
    requests.make_writer(store),
    requests.make_sampling(config.traces),
    config_lib.build(local.LocalConfig, cfg.local),
  )


# Each makes a teacher of (run's config, its `traces`, artifacts, context).
MAKERS: dict[str, Callable[..., base.Teacher]] = {
  RULES: _rules,
  'endpoint': _endpoint,
  'local': _local,
}
