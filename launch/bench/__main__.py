"""Benchmarks, each as a ratio to a peer that was measured in the same run.

    bash launch/bench.sh sid --output=results/bench_sid.json

Groups: `sid` (RQ-VAE training and assignment, constrained beam search), `lm`
(decoding, rollouts, drawing, training), `rl` (a whole RL step, its reward),
`input` (the data beside the step that it feeds) and `serve` (the server of a
run, `--workdir`, under load; with `--soak=100000` so many requests of patient
and rude clients in its place); `--only` takes a part. Ours and the peer take
turns; a ratio is the median over the turns, since machines differ and are
noisy. `launch/bench.sh` installs the peers.
"""

import importlib
import json
import pathlib
import sys

from absl import app, flags, logging

from launch import cli, start
from launch.bench import contests

GROUPS = {
  name: f'launch.bench.{name}' for name in ('input', 'lm', 'rl', 'serve', 'sid')
}

_OUTPUT = flags.DEFINE_string('output', '', 'Where to keep the report (JSON).')
_ONLY = flags.DEFINE_string(
  'only', '', 'Only the parts whose names hold this text, such as 10M.'
)
_TURNS = flags.DEFINE_integer(
  'turns', 5, 'How often ours and the peer are measured.', lower_bound=1
)
_WORKDIR = flags.DEFINE_string(
  'workdir', '', 'Of the group serve: directory of a finished run.'
)
_SOAK = flags.DEFINE_integer(
  'soak', 0, 'Of the group serve: requests of a soak.', lower_bound=0
)


def main(argv) -> None:
  """Measures a group and prints its table."""
  if len(argv) != 2 or argv[1] not in GROUPS:
    raise app.UsageError(f'Name one group of {sorted(GROUPS)}.')
  from gr2_jax import files, progress

  start.set_up()
  given = (_WORKDIR.value, _SOAK.value) if argv[1] == 'serve' else ()
  parts = importlib.import_module(GROUPS[argv[1]]).parts(*given)
  parts = {name: part for name, part in parts.items() if _ONLY.value in name}
  if not parts:
    raise app.UsageError(f'No part of {argv[1]} has {_ONLY.value!r} in it.')
  report = {
    'machine': contests.machine(),
    'turns': _TURNS.value,
    'results': [],
  }
  with progress.bar(total=len(parts), desc='bench', unit='part') as bar:
    for part in parts.values():
      for contest in part():
        # A soak is measured by itself.
        row = contest
        if isinstance(contest, contests.Contest):
          row = contests.measure(contest, _TURNS.value)
        report['results'].append(row)
        logging.info('%s', row)
        if _OUTPUT.value:
          files.write_json(pathlib.Path(_OUTPUT.value).expanduser(), report)
      bar.update()
  _print(report['results'])
  if not all(row.get('sound', True) for row in report['results']):
    sys.exit('The soak found faults: see its problems above.')


def _print(rows: list[dict]) -> None:
  """Prints the tables of a report."""
  from gr2_jax.report import terminal

  columns = ('name', 'peer', 'unit', 'ours', 'theirs', 'ratio', 'goal')
  compared = [row for row in rows if 'ratio' in row]
  cells = [[str(row[c]) for c in columns] for row in compared]
  if compared:
    print(terminal.rows([list(columns), *cells]))
  for row in compared:
    if 'seconds' in row:
      sides = row['seconds']
      cells = [[s, *map(str, seconds.values())] for s, seconds in sides.items()]
      print(f'\nSeconds of one: {row["name"]}, beside {row["peer"]}')
      print(terminal.rows([['', *sides['ours']], *cells]))
  for row in rows:
    if 'ratio' not in row:
      print(json.dumps({k: v for k, v in row.items() if k != 'memory'}))
      print(json.dumps(row['memory']))


if __name__ == '__main__':
  cli.run(main)
