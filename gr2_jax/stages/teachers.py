"""How traces are sampled, and the teacher that a config names."""

from collections.abc import Callable

import ml_collections

from gr2_jax import config as config_lib
from gr2_jax.run import artifacts, runner
from gr2_jax.stages import requests
from gr2_jax.teacher import (
  base,
  endpoint,
  journal,
  local,
  rules,
)
from gr2_jax.teacher import config as teacher_config


def history_items(
  cfg: requests.TracesConfig, store: artifacts.Artifacts
) -> int:
  """Returns how many of a user's last items a teacher is shown."""
  return cfg.prompt.history_items or store.prompt.history_items


def check(cfg: requests.TracesConfig) -> None:
  """Refuses a teacher that does not exist.

  Raises:
    ValueError: there is no teacher of that name.
  """
  if cfg.teacher not in MAKERS:
    raise ValueError(
      f'traces.teacher is {cfg.teacher!r}; use one of {sorted(MAKERS)}.'
    )


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
  cfg = config_lib.build(requests.TracesConfig, config.traces)
  check(cfg)
  return MAKERS[cfg.teacher](config, cfg, store, context)


def _rules(config, cfg, store, context) -> rules.RulesTeacher:
  del config, context
  return rules.RulesTeacher(
    store.dataset,
    store.splits,
    store.sids,
    store.vocab,
    history_items=history_items(cfg, store),
    explanation_tokens=cfg.explanation_tokens,
    cfg=cfg.rules,
  )


def _endpoint(config, cfg, store, context) -> endpoint.EndpointTeacher:
  answers = context.directory / 'answers'
  return endpoint.EndpointTeacher(
    requests.make_writer(store, cfg),
    cfg.sampling,
    config_lib.build(teacher_config.EndpointConfig, config.endpoint),
    cfg.model,
    journal.spent(answers, cfg.model),
  )


def _local(config, cfg, store, context) -> local.LocalTeacher:
  del config
  return local.load(
    cfg.model,
    context.mesh,
    requests.make_writer(store, cfg),
    cfg.sampling,
    cfg.local,
  )


# Each makes a teacher of (run's config, its `traces`, artifacts, context).
MAKERS: dict[str, Callable[..., base.Teacher]] = {
  requests.RULES: _rules,
  'endpoint': _endpoint,
  'local': _local,
}
