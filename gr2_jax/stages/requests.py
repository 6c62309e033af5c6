"""What a teacher is asked about a run's lists, and in whose words."""

import dataclasses

import ml_collections

from gr2_jax import config as config_lib
from gr2_jax.stages import artifacts
from gr2_jax.teacher import base, messages, parts
from gr2_jax.text import prompts


def request(
  store: artifacts.Artifacts,
  lists: artifacts.Lists,
  row: int,
  hinted: bool = False,
) -> base.Request:
  """Returns what is asked about one of a run's lists.

  Args:
    store: the run.
    lists: N lists.
    row: which one.
    hinted: whether the target is told; of the rest of a list it is not read.
  """
  items = lists.candidates[row]
  hint = int(items[lists.target[row]]) if hinted else None
  history = store.history(int(lists.user[row]), int(lists.position[row]))
  # A list shorter than K is filled up with -1.
  return base.Request(history, items[items >= 0], hint)


def make_writer(store: artifacts.Artifacts) -> messages.Writer:
  """Makes what writes the messages of a run.

  A teacher sees as much history as the prompts of the run itself show, unless
  `traces.prompt.history_items` says otherwise: the model that learns from it
  cannot cite what it does not see. An explanation has the run's own budget, and
  what a word takes of it is measured on prose of the templates.

  Args:
    store: the run; its config has `traces.prompt`, fields of MessageConfig.
  """
  traces = store.config.traces
  given = config_lib.to_dict(traces.get('prompt', {}))
  own = config_lib.build(prompts.PromptConfig, store.config.text.prompt)
  if not given.get('history_items'):
    given['history_items'] = own.history_items
  if 'explanation_tokens' in traces:
    given.setdefault('explanation_tokens', traces.explanation_tokens)
  cfg = config_lib.build(messages.MessageConfig, given)
  if 'tokens_a_word' not in given:
    prose = ' ' + ' '.join(parts.read(cfg.version)['priming'].split())
    tokens = len(store.vocab.encode(prose, added='none'))
    measured = max(round(tokens / len(prose.split()), 2), 1.0)
    cfg = dataclasses.replace(cfg, tokens_a_word=measured)
  return messages.Writer(store.dataset.items, store.sids, cfg)


def make_sampling(
  traces: ml_collections.ConfigDict,
) -> messages.SamplingConfig:
  """Reads how a language model samples; `traces` is a section of a config."""
  return config_lib.build(messages.SamplingConfig, traces.get('sampling', {}))
