"""Which traces teach best: targeted or rejection, knowledge priming on or off.

    python -m launch.sweep --config=configs/traces_ablation.py \
        --workdir=runs/traces_ablation --output=results/traces_ablation.json

From traces to RL and its evaluation; the stages before are made once a seed.
Switches: `data=ml-100k`, `beauty` (give `--config.base.data.dir=DIR`) or `tiny`
(does it run?); `seeds=3`, how many; `teacher=rules`, `endpoint` (give
`--config.base.endpoint.url` and `--config.base.traces.model`) or `local` (the
latter). What a prompt tells a language model of how people buy, the rules know
as the weight of the order of buying: for them priming off is that weight at 0.
"""

import ml_collections

from configs import beauty, common, quickstart, tiny

_UNPRIMED = {
  'rules': {'traces.rules.follow': 0.0},
  'endpoint': {'traces.prompt.priming': False},
  'local': {'traces.prompt.priming': False},
}
_STAGES = (
  *('data', 'sid', 'midtrain', 'candidates', 'traces', 'sft', 'rl'),
  *('direct', 'evaluate'),
)


def get_config(arg: str = ''):
  """Returns the sweep; `arg` are the switches after the colon."""
  switches = common.parse_switches(
    arg, data='ml-100k', seeds=3, teacher='rules'
  )
  bases = {
    'beauty': beauty.get_config,
    'ml-100k': quickstart.get_config,
    'tiny': tiny.get_config,
  }
  if switches.data not in bases:
    raise ValueError(f'Switch data={switches.data!r}: use {sorted(bases)}.')
  base = bases[switches.data]()
  common.choose_teacher(base, switches.teacher)
  unprimed = _UNPRIMED[switches.teacher]
  runs = {}
  for mode in ('rejection', 'targeted'):
    change = {'traces.mode': mode}
    runs[mode] = change
    runs[f'{mode}-priming'] = {**change, **unprimed}
  return ml_collections.ConfigDict(
    {
      'base': base,
      'stages': list(_STAGES),
      'seeds': list(range(switches.seeds)),
      'share': [],
      'branch': 'candidates',
      'runs': [(name, tuple(change.items())) for name, change in runs.items()],
      'columns': [
        'traces.acceptance',
        'traces.quality.last_is_top',
        'traces.quality.distinct_2',
        'evaluate.n',
        *(
          f'evaluate.systems.{system}.{metric}'
          for system in ('prerank', 'sft', 'rl')
          for metric in ('recall@1', 'ndcg@5')
        ),
        'evaluate.systems.rl.identity_rate',
      ],
    }
  )
