"""The order of the stages, and a run of all or some of them."""

import pathlib
from collections.abc import Sequence

import ml_collections
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import experiment, files, processes, sharding
from gr2_jax.report import terminal
from gr2_jax.run import lock, meshes
from gr2_jax.run import redo as redo_lib
from gr2_jax.stages import (
  candidates,
  checks,
  data,
  direct,
  evaluate,
  midtrain,
  rl,
  sft,
  sid,
  traces,
  world,
)

STAGES = {
  'data': data.run,
  'sid': sid.run,
  'midtrain': midtrain.run,
  'candidates': candidates.run,
  'traces': traces.run,
  'sft': sft.run,
  'rl': rl.run,
  'direct': direct.run,
  'evaluate': evaluate.run,
}


def run(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  only: Sequence[str] = (),
  force: bool = False,
  redo: bool = False,
) -> None:
  """Runs the stages and prints the closing table.

  After the last stage, or that of retrieval after the candidates where these
  are the last stage asked for.

  What can be checked is checked first: a start that is refused changes nothing
  in the workdir.

  Args:
    config: a whole config, as the files in `configs/` give it.
    workdir: directory of the run, made if missing.
    only: stages to run; empty for all. They run in the order of `STAGES`.
    force: continue from checkpoints that were made with another config.
    redo: make finished stages again that do not fit the config or their inputs.

  Raises:
    ValueError: a stage that does not exist; a setting that is wrong, or
      contradicts another or the devices; or what `redo.check` refuses.
    FileNotFoundError: files or stages that are read are missing.
    ModuleNotFoundError: `config.tracking` needs a package that is missing.
    RuntimeError: another run is active in the workdir.
  """
  unknown = sorted(set(only) - set(STAGES))
  if unknown:
    raise ValueError(f'No stage {unknown}; the stages are {list(STAGES)}.')
  checked = experiment.read(config)
  config = experiment.spell_paths(config)
  asked = [name for name in STAGES if not only or name in only]
  stages = STAGES | world.stages(config)

  with lock.hold(workdir):
    left = processes.on_first(
      redo_lib.check, config, workdir, stages, asked, force=force, redo=redo
    )
    # Of a finished run, too: what reads it takes the mesh of the last start.
    parts = sharding.batch_parts(meshes.make(config))
    checks.check_batches(checked, parts, left)
    processes.on_first(config_lib.save, config, workdir / 'config.json')
    for index, (name, stage) in enumerate(stages.items(), 1):
      if name in asked:
        logging.info('[%d/%d] %s', index, len(stages), name)
        stage(config, workdir, force, redo)
  if processes.is_first():
    _show(asked[-1], workdir)


def _show(last_asked: str, workdir: pathlib.Path) -> None:
  """Prints the table of the report that the last stage wrote, if any."""
  for last, name, table in (
    ('evaluate', 'report.json', terminal.closing_table),
    ('candidates', 'retrieval.json', terminal.retrieval_table),
  ):
    report = workdir / name
    if last_asked == last and report.exists():
      page = report.with_suffix('.html')
      print(table(files.read_json(report)))
      print(f'\nReport: {report}')
      if page.exists():
        print(f'        {page}')
