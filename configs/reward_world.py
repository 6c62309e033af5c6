"""Does the reward design matter? A world whose best order is known.

    python -m launch.sweep --config=configs/reward_world.py \
        --workdir=runs/reward_world --output=results/reward_world.json
"""

import ml_collections

from configs import common

_STAGES = ('data', 'sid', 'midtrain', 'candidates', 'traces', 'sft', 'rl')


def _base() -> ml_collections.ConfigDict:
  config = common.base()
  config.data.name = 'world'
  config.data.kind = 'synthetic'
  config.data.core = 0
  # So many users that SFT cannot memorise how each answer begins.
  config.data.world.update(groups=8, users=16_000, k=5, noise=8.0)
  config.sid.levels = 2
  config.sid.codes = 8
  config.text.pieces = 320
  config.text.prompt.update(
    history_items=1,
    retrieval_items=1,
    max_candidates=5,
    title_tokens=0,
    category_tokens=0,
    max_tokens=72,
    instruction='',
  )
  config.lm.width = 96
  config.lm.layers = 2
  config.lm.head_dim = 24
  config.lm.mlp_dim = 192
  config.lm.bf16_matmul = False
  # Sequences of a hundred tokens: a short wheel tells their places apart.
  config.lm.rope_theta = 1e3
  # SFT and RL share the lists.
  config.traces.sft_share = 1.0
  config.traces.keep = 0.2
  config.sft.weights = {'answer': 1.0}
  # The loss falls when the model finds out how to copy a list: after 2,000
  # steps with one seed, not within 3,000 with another.
  config.sft.train.update(
    steps=6000,
    batch_size=32,
    length=80,
    lr=2e-3,
    dropout=0.0,
    ckpt_every=1000,
  )
  # Invalid answers exist only where lists are written token by token.
  config.answer.ranking = 'list'
  config.rl.update(
    lists='train',
    steps=200,
    lr=3e-4,
    prompts_per_step=16,
    updates_per_rollout=2,
    max_new_tokens=26,
    explanation_tokens=0,
    constrain=False,
    alpha=0.2,
    credit='answer',
    valid_lists=128,
    checkpoint_every=10,
  )
  return config


def get_config(arg: str = ''):
  """Returns the sweep; `arg` are the switches after the colon."""
  switches = common.parse_switches(arg, seeds=3)
  runs = {
    f'{name}+invalid{invalid}': {
      'rl.conditional': name == 'conditional',
      'rl.invalid': float(invalid),
    }
    for invalid in (-1, 0)
    for name in ('unconditional', 'conditional')
  }
  return ml_collections.ConfigDict(
    {
      'base': _base(),
      'stages': list(_STAGES),
      'seeds': list(range(switches.seeds)),
      'share': [],
      'branch': 'sft',
      'runs': [(name, tuple(change.items())) for name, change in runs.items()],
      'columns': [
        'rl.identity_rate_first',
        'rl.identity_rate_last',
        'rl.valid_rate_first',
        'rl.valid_rate_last',
        'rl.valid_ndcg@5_prerank',
        'rl.valid_ndcg@5_first',
        'rl.valid_ndcg@5_last',
      ],
      'curves': [
        'rl.identity_rate',
        'rl.valid_ndcg@5',
        'rl.valid_rate',
        'rl.reward',
        'rl.rank_reward',
        'rl.fill_rate',
        'rl.entropy',
      ],
    }
  )
