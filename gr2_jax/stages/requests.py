"""The requests to a teacher about a run's lists, and their settings."""

import dataclasses
from typing import Literal

from gr2_jax import bounds
from gr2_jax.run import artifacts
from gr2_jax.teacher import acceptance, base, messages
from gr2_jax.teacher import config as teacher_config
from gr2_jax.teacher import local as local_lib
from gr2_jax.teacher import rules as rules_lib

RULES = 'rules'


@dataclasses.dataclass(frozen=True)
class TracesConfig:
  """How traces are sampled.

  Attributes:
    teacher: who answers: 'rules' [our choice], 'endpoint', a server's model, or
      'local', one that is read here [P: a large language model].
    model: which language model; '' for the rules.
    mode: 'rejection' (better on Beauty [P]) or 'targeted'.
    attempts: how often a list is asked at most [G].
    sft_share: share of the lists of the last training positions that a teacher
      explains and SFT trains on; RL has the others [G].
    lists: most lists that are asked about, drawn by the seed; 0 for all. A
      larger number adds to the lists of a smaller one.
    explanation_tokens: budget of the words, that of `rl.explanation_tokens`:
      what a teacher may write is what the model may write.
    near_duplicate: similarity in (0, 1] from which on an explanation repeats an
      earlier one and is rejected (`explanations.near_duplicates`) [G]; 0 for
      never, as suits the rules, which have few wordings.
    prompt: what a language model is told; its `history_items` holds for every
      teacher.
    sampling: how a language model samples.
    rules: the weights of the rules.
    local: how a local model runs.
    keep: of a synthetic world, which asks no teacher: share of the answers that
      keep the incoming order; the others are rotated to begin with another
      item [our choice].
  """

  teacher: str = RULES
  model: str = ''
  mode: Literal['rejection', 'targeted'] = acceptance.REJECTION
  attempts: int = 8
  sft_share: float = artifacts.SFT_SHARE
  lists: int = 0
  explanation_tokens: int = 32
  near_duplicate: float = 0.0
  prompt: teacher_config.MessageConfig = teacher_config.MessageConfig()
  sampling: teacher_config.SamplingConfig = teacher_config.SamplingConfig()
  rules: rules_lib.RulesConfig = rules_lib.RulesConfig()
  local: local_lib.LocalConfig = local_lib.LocalConfig()
  keep: float = 0.2

  def __post_init__(self):
    for name in ('near_duplicate', 'keep', 'sft_share'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f'traces.{name} = {getattr(self, name)} must lie in [0, 1].'
        )
    bounds.at_least(self, 0, 'lists', 'explanation_tokens')
    bounds.at_least(self, 1, 'attempts')


def request(
  store: artifacts.Artifacts,
  lists: artifacts.CandidateLists,
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


def make_writer(
  store: artifacts.Artifacts, cfg: TracesConfig
) -> messages.Writer:
  """Makes what writes the messages of a run.

  A teacher sees as much history as the prompts of the run itself show, unless
  `traces.prompt.history_items` says otherwise: the model that learns from it
  cannot cite what it does not see. An explanation has the run's own budget, and
  what a word takes of it is measured on prose of the templates.

  Args:
    store: the run.
    cfg: how its traces are sampled.
  """
  told = cfg.prompt
  if not told.history_items:
    shown = store.prompt.history_items
    told = dataclasses.replace(told, history_items=shown)
  if not told.tokens_a_word:
    prose = ' ' + ' '.join(
      messages.read_templates(told.version)['priming'].split()
    )
    tokens = len(store.vocab.encode(prose, added='none'))
    measured = max(round(tokens / len(prose.split()), 2), 1.0)
    told = dataclasses.replace(told, tokens_a_word=measured)
  return messages.Writer(
    store.dataset.items, store.sids, told, cfg.explanation_tokens
  )
