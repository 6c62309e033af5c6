"""A second round of RL, without explanations [GR2-T: the model that is served].

The RL model is rewarded further, but for the list alone: the constraint keeps
the explanation empty (`explanation_tokens` = 0). So one model knows both kinds
of answers, and the prompt is the same. For lists written token by token: with
utilities the RL stage trains both kinds. Off (`direct.steps` = 0) by default;
the evaluation then decodes the RL model itself without explanations.
"""

import dataclasses

import ml_collections

from gr2_jax import bounds
from gr2_jax import config as config_lib
from gr2_jax.rl import config as rl_config
from gr2_jax.run import runner
from gr2_jax.stages import reference, rl


@dataclasses.dataclass(frozen=True)
class DirectConfig:
  """What differs from `config.rl`, whose other settings hold.

  Attributes:
    steps: RL steps; 0 for no second round [G].
    lr: learning rate; that of `rl.lr` unless it is set [G].
    max_new_tokens: the longest answer: the list and what encloses it.
  """

  steps: int = 0
  lr: float = 6e-5
  max_new_tokens: int = 60

  def __post_init__(self):
    bounds.at_least(self, 0, 'steps', 'lr')
    bounds.at_least(self, 1, 'max_new_tokens')


def _inputs(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  return (*reference.inputs(config), 'rl')


@runner.stage(
  'direct',
  sections=('text', 'answer', 'rl', 'direct'),
  inputs=_inputs,
  external=reference.fingerprint,
)
def run(config: ml_collections.ConfigDict, context: runner.Context) -> dict:
  """Trains the RL model on the rewards of lists without explanations."""
  cfg = config_lib.build(DirectConfig, config.direct)
  if not cfg.steps:
    return {'steps': 0}
  settings = {**config_lib.to_dict(config.rl), **dataclasses.asdict(cfg)}
  settings['explanation_tokens'] = 0
  built = config_lib.build(rl_config.RLConfig, settings)
  return {'steps': cfg.steps, **rl.train(built, 'rl', config, context)}
