"""The techniques of the tokenizer, around the default and the bare RQ-VAE.

    python -m launch.sweep --config=configs/sid_ablation.py \
        --config.base.data.dir=DIR --workdir=runs/sid_ablation

DIR holds Beauty, as for `configs/beauty.py`. Switches: `data=beauty` or
`ml-100k` (needs no DIR); `seeds=3`, how many.
"""

import ml_collections

from configs import beauty, common, quickstart

# The paper gives no weights: these are our choice.
_ON = {
  'kmeans++': {'sid.init': 'kmeans++'},
  'ema': {'sid.ema': True},
  'diversity': {'sid.diversity': 0.01},
  'dead_reset': {'sid.dead_reset': 20},
  'split': {'sid.split_below': 0.25},
  'random_last': {'sid.last_level': 'random'},
  'sinkhorn_last': {'sid.last_level': 'sinkhorn'},
  'contrastive': {'sid.contrastive': 0.05},
}
_OFF = {
  'kmeans++': {'sid.init': 'random'},
  'ema': {'sid.ema': False},
  'split': {'sid.split_below': 0.0},
  'random_last': {'sid.last_level': 'nearest'},
}
_BARE = {
  'sid.init': 'random',
  'sid.ema': False,
  'sid.diversity': 0.0,
  'sid.dead_reset': 0,
  'sid.split_below': 0.0,
  'sid.last_level': 'nearest',
  'sid.contrastive': 0.0,
}


def get_config(arg: str = ''):
  """Returns the sweep; `arg` are the switches after the colon."""
  switches = common.parse_switches(arg, data='beauty', seeds=3)
  bases = {'beauty': beauty.get_config, 'ml-100k': quickstart.get_config}
  if switches.data not in bases:
    raise ValueError(f'Switch data={switches.data!r}: use {sorted(bases)}.')
  runs = {'default': {}}
  runs |= {f'default-{name}': change for name, change in _OFF.items()}
  runs |= {
    f'default+{name}': change
    for name, change in _ON.items()
    if name not in _OFF
  }
  runs['bare'] = _BARE
  runs |= {f'bare+{name}': {**_BARE, **on} for name, on in _ON.items()}
  base = bases[switches.data]()
  # Around what all data sets share, not around what one was tuned to.
  base.sid.contrastive = 0.0
  plain = {'sid.quantiser': 'kmeans'}
  runs['residual_kmeans'] = {**plain, 'sid.last_level': 'nearest'}
  runs['residual_kmeans+random_last'] = plain
  # Keys with dots are no nested sections: as a list of pairs they stay whole.
  return ml_collections.ConfigDict(
    {
      'base': base,
      'stages': ['data', 'sid'],
      'seeds': list(range(switches.seeds)),
      'share': [('sid.embeddings', 'sid/embeddings.npy')],
      'runs': [(name, tuple(change.items())) for name, change in runs.items()],
      'columns': [
        'sid.uniqueness',
        'sid.uniqueness_nearest',
        'sid.collisions',
        'sid.perplexity',
        'sid.dead_codes',
        'sid.mse',
        'sid.agreement',
        'sid.seconds',
      ],
    }
  )
