"""A whole run as one typed tree of settings, checked before anything runs.

Each section is a dataclass that stands where it is used, and whose docstring
says what its settings mean and where their defaults come from: [P] the paper,
[N] numbers of others or of industry, [G] or "our choice" where it is silent.
`defaults` gives the tree as a ConfigDict, which the files in `configs/` change
and whose every field is a flag; `read` makes the tree of it again.
"""

import dataclasses
import os
import pathlib
from typing import Literal

import ml_collections

from gr2_jax import assets
from gr2_jax import config as config_lib
from gr2_jax.data import sources
from gr2_jax.lm.config import ModelConfig
from gr2_jax.rl.config import RLConfig
from gr2_jax.run import sizing
from gr2_jax.sid.config import SidConfig
from gr2_jax.stages import checks
from gr2_jax.stages.direct import DirectConfig
from gr2_jax.stages.evaluate import EvaluateConfig
from gr2_jax.stages.midtraining import MidtrainConfig
from gr2_jax.stages.requests import TracesConfig
from gr2_jax.stages.retrievers import CandidatesConfig
from gr2_jax.stages.sft import SFTConfig
from gr2_jax.teacher.config import EndpointConfig
from gr2_jax.text.prompts import PromptConfig
from gr2_jax.train.writers import Tracking

# Settings that name files or folders; `lm.pretrained` may be an asset, too.
_PATHS = ('data.dir', 'sid.embeddings', 'lm.pretrained')


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """How devices divide the work; see `sharding.make_mesh`. Our choice.

  Attributes:
    data: devices that split batches; -1: what the other axes leave.
    fsdp: devices that split batches and parameters; where it or `tensor` is 0,
      all three are chosen (`run/meshes.py`).
    tensor: devices that split heads and the vocabulary.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Vocabulary and prompts.

  Attributes:
    pieces: pieces of text in the vocabulary of a model from scratch, fewer
      where the texts have no more; a pretrained model brings its own [our
      choice].
    prompt: what a prompt shows.
  """

  pieces: int = 3000
  prompt: PromptConfig = PromptConfig()


@dataclasses.dataclass(frozen=True)
class RankingConfig:
  """How a list is ranked.

  Attributes:
    ranking: 'likelihood', by utilities that join the likelihood of each
      candidate with the evidence [our choice], or 'list', token by token [P].
  """

  ranking: Literal['likelihood', 'list'] = 'likelihood'


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Every setting of a run.

  Attributes:
    data: the raw data and how they are split.
    seed: of all that is drawn.
    mesh: the device mesh.
    sid: the semantic IDs.
    text: vocabulary and prompts.
    lm: the model.
    midtrain: how it learns semantic IDs beside text.
    candidates: the lists that are re-ranked.
    traces: who explains lists, and how.
    endpoint: how a server is asked, and not what: no stage is redone where it
      changes.
    sft: supervised fine-tuning.
    rl: reinforcement learning.
    answer: how a list is ranked.
    direct: a second round of RL, without explanations.
    evaluate: how test lists are answered and shown.
    tracking: how trainings are watched.
  """

  data: sources.SourceConfig
  seed: int = 0
  mesh: MeshConfig = MeshConfig()
  sid: SidConfig = SidConfig()
  text: TextConfig = TextConfig()
  lm: ModelConfig = ModelConfig()
  midtrain: MidtrainConfig = dataclasses.field(default_factory=MidtrainConfig)
  candidates: CandidatesConfig = CandidatesConfig()
  traces: TracesConfig = TracesConfig()
  endpoint: EndpointConfig = EndpointConfig()
  sft: SFTConfig = dataclasses.field(default_factory=SFTConfig)
  rl: RLConfig = RLConfig()
  answer: RankingConfig = RankingConfig()
  direct: DirectConfig = DirectConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
  tracking: Tracking = Tracking()

  def check(self) -> None:
    """Refuses settings that contradict each other.

    Raises:
      ValueError: settings, their values and the remedy.
    """
    checks.check(self)


def defaults() -> ml_collections.ConfigDict:
  """Returns every setting with its default.

  `traces.explanation_tokens` and `rl.explanation_tokens` are one setting: what
  a teacher may write is what the model may write. `direct.lr` is `rl.lr` until
  it is set.
  """
  config = config_lib.defaults(Experiment)
  config.traces.explanation_tokens = config.rl.get_ref('explanation_tokens')
  config.direct.lr = config.rl.get_ref('lr') * 1.0
  return config


def unset(config: ml_collections.ConfigDict) -> None:
  """Leaves to the data what can be chosen by it; see `sizing.unset`."""
  sizing.unset(config)


def fill(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Chooses what is left to the data; see `sizing.fill`.

  Settings that are wrong whatever the data are refused before these are read,
  which may take minutes.

  Args:
    config: of a run, in which settings may be None.

  Returns:
    A whole config: the same one where nothing is None.

  Raises:
    ValueError: as `read` and `sizing.fill`.
    FileNotFoundError: a missing file or folder.
  """
  errors = []
  for example in sizing.examples(config):
    try:
      read(example)
    except ValueError as error:
      errors.append(error)
    else:
      return sizing.fill(config)
  raise errors[0]


def read(config: ml_collections.ConfigDict) -> Experiment:
  """Makes the tree of a config.

  Args:
    config: of a run; what is missing takes its default.

  Returns:
    The tree, checked.

  Raises:
    ValueError: a setting that is unknown or wrong, or contradicts another, by
      its dotted name.
    ModuleNotFoundError: `tracking` asks for a package that is not installed.
  """
  found = config_lib.build(Experiment, config, '')
  found.check()
  return found


def spell_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Gives each path from outside the run its one spelling.

  A stage's key holds them as settings: without this, `DIR/`, `~/DIR` and a
  relative DIR would be other settings than the whole path of the same folder.

  Args:
    config: of a run.

  Returns:
    A copy in which those that exist are absolute, without `~`.
  """
  config = config.copy_and_resolve_references()
  for name in _PATHS:
    section, key = name.split('.')
    value = config.get(section, {}).get(key, '')
    path = pathlib.Path(value).expanduser()
    if value and value not in assets.ASSETS and path.exists():
      config[section][key] = os.path.abspath(path)
  return config
