"""Benchmarks, each as a ratio to a peer that was measured in the same run.

    bash launch/bench.sh sid --output=results/bench_sid.json

Groups: `sid` (RQ-VAE training and assignment, constrained beam search), `lm`
(decoding, rollouts, drawing, training), `rl` (a whole RL step, its reward) and
`input` (the data beside the step that it feeds); `--only` takes a part. Ours
and the peer take turns; a ratio is the median over the turns, since machines
differ and are noisy. `launch/bench.sh` installs the peers.
"""

import importlib
import pathlib

from absl import app, flags, logging

from launch import bench_contest, cli, start

GROUPS = {name: f'launch.bench_{name}' for name in ('input', 'lm', 'rl', 'sid')}

_OUTPUT = flags.DEFINE_string('output', '', 'Where to keep the report (JSON).')
_ONLY = flags.DEFINE_string(
  'only', '', 'Only the parts whose names hold this text, such as 10M.'
)
_TURNS = flags.DEFINE_integer(
  'turns', 5, 'How often ours and the peer are measured.', lower_bound=1
)


def main(argv) -> None:
  """Measures a group and prints its table."""
  if len(argv) != 2 or argv[1] not in GROUPS:
    raise app.UsageError(f'Name one group of {sorted(GROUPS)}.')
  from gr2_jax import files, progress
  from gr2_jax.report import terminal

  start.set_up()
  parts = importlib.import_module(GROUPS[argv[1]]).parts()
  parts = {name: part for name, part in parts.items() if _ONLY.value in name}
  if not parts:
    raise app.UsageError(f'No part of {argv[1]} has {_ONLY.value!r} in it.')
  report = {
    'machine': bench_contest.machine(),
    'turns': _TURNS.value,
    'results': [],
  }
  with progress.bar(total=len(parts), desc='bench', unit='part') as bar:
    for part in parts.values():
      for contest in part():
        row = bench_contest.measure(contest, _TURNS.value)
        report['results'].append(row)
        logging.info('%s', row)
        if _OUTPUT.value:
          files.write_json(pathlib.Path(_OUTPUT.value).expanduser(), report)
      bar.update()
  columns = ('name', 'peer', 'unit', 'ours', 'theirs', 'ratio', 'goal')
  cells = [[str(row[c]) for c in columns] for row in report['results']]
  print(terminal.rows([list(columns), *cells]))
  for row in report['results']:
    if 'seconds' in row:
      sides = row['seconds']
      cells = [[s, *map(str, seconds.values())] for s, seconds in sides.items()]
      print(f'\nSeconds of one: {row["name"]}')
      print(terminal.rows([['', *sides['ours']], *cells]))


if __name__ == '__main__':
  cli.run(main)
