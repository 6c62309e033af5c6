"""Files ranked, and items given codes, on many machines by Apache Beam.

A part of the file is an element, and what is made of it is written to a folder
under its number: made a second time, after a worker died, it is the same files.
Parts are those of the local commands, so that each list is decoded with the
same neighbours, and the result has the same bytes. Machines and this process
share a file system.

Needs `apache-beam`, an extra of this project; nothing else imports this module
but commands that are told to use it.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference import base
from apache_beam.options import pipeline_options

from gr2_jax import files
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import parts as parts_lib
from gr2_jax.ranker import new_items
from gr2_jax.run import artifacts
from gr2_jax.serve import scoring

_CODES = 'codes'
# What programs are compiled by; the workers' should be those of this process.
_ENVIRONMENT = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS')


class PartHandler(base.ModelHandler[parts_lib.Part, dict[str, bytes], Any]):
  """Makes something of parts by a model.

  Beam does not put them into batches: a part is one, and not every runner gives
  back what Beam has left in its last batch (the DaskRunner does not).
  """

  def __init__(
    self,
    load: Callable[[], Any],
    work: Callable[[Any, parts_lib.Part], dict[str, bytes]],
  ):
    """Makes a handler; both functions are sent to the workers.

    Args:
      load: returns the model.
      work: returns what the model makes of a part, content by name.
    """
    there = {x: os.environ[x] for x in _ENVIRONMENT if x in os.environ}
    super().__init__(env_vars=there)
    self._load, self._work = load, work

  def load_model(self) -> Any:
    """Loads the model, once a process."""
    return self._load()

  def run_inference(
    self,
    batch: Sequence[parts_lib.Part],
    model: Any,
    inference_args: dict[str, Any] | None = None,
  ) -> list[base.PredictionResult]:
    """Returns what the model makes of each part."""
    return [
      base.PredictionResult(part, self._work(model, part)) for part in batch
    ]

  def should_skip_batching(self) -> bool:
    """Says that elements are batches: lists of parts."""
    return True

  def get_metrics_namespace(self) -> str:
    """Returns the name under which Beam counts."""
    return 'gr2_jax'


def run(
  parts: Sequence[parts_lib.Part],
  handler: PartHandler,
  folder: pathlib.Path,
  options: str,
) -> None:
  """Makes something of all parts.

  Args:
    parts: the parts.
    handler: says what.
    folder: where it is written to, on the shared file system.
    options: of Beam, such as '--runner=DirectRunner'.

  Raises:
    FileNotFoundError: a missing file. Other errors are those of the runner,
      with what the worker said in their message.
  """
  if not parts:
    return
  given = pipeline_options.PipelineOptions(options.split())
  # A chain without side inputs and tagged outputs, which not all runners have.
  with beam.Pipeline(options=given) as pipeline:
    (
      pipeline
      | beam.Create([[part] for part in parts])
      | base.RunInference(handler)
      | 'Keep' >> beam.Map(_keep, str(folder))
    )


def _keep(found: base.PredictionResult, folder: str) -> int:
  scoring.keep(folder, found.example, found.inference)
  return found.example.number


@contextlib.contextmanager
def _folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder beside the output, and removes it."""
  output = output.absolute()
  name = tempfile.TemporaryDirectory(
    prefix=f'.{output.name}.', dir=output.parent
  )
  with name as made:
    yield pathlib.Path(made)


def rank(
  source: pathlib.Path,
  output: pathlib.Path,
  options: str,
  *,
  workdir: str,
  batch_size: int,
  most: int,
  strict: bool = False,
  model: str = 'rl',
  mode: str | None = None,
  catalogue: str | None = None,
) -> int:
  """Ranks the lists of a file: what `launch.rerank` does, on many machines.

  Lines that failed are written, as they were, to a file beside the output too.

  Args:
    source: JSON lines or Parquet.
    output: JSON lines; replaced in one step at the end.
    options: of Beam.
    workdir: of the run.
    batch_size: lists decoded at a time.
    most: lines of a part.
    strict: ends the output before the first line that failed.
    model: which model of the run.
    mode: how it answers; see `rerank.load`.
    catalogue: what `launch.new_items` wrote.

  Returns:
    How many lines failed.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: a file that cannot be read.
  """
  parts = list(parts_lib.cut(source, most))
  work = functools.partial(scoring.rank, batch_size=batch_size)
  artifacts.open_run(workdir, model)
  load = functools.partial(
    scoring.load,
    _absolute(workdir),
    model=model,
    mode=mode,
    catalogue=None if catalogue is None else _absolute(catalogue),
  )
  errors = output.with_name(f'{output.stem}.errors.jsonl')
  with _folder(output) as folder:
    run(parts, PartHandler(load, work), folder, options)
    return scoring.join(folder, len(parts), output, errors, strict)


def codes(
  items: Sequence[dataset_lib.Item],
  output: pathlib.Path,
  options: str,
  workdir: str,
) -> np.ndarray:
  """Quantises items: what `new_items.Tokenizer.codes` does, on many machines.

  Args:
    items: N items.
    output: beside which they are written for the workers meanwhile.
    options: of Beam.
    workdir: of the run.

  Returns:
    int32 [N, L], the nearest codes.
  """
  with _folder(output) as folder:
    path = folder / 'items.jsonl'
    files.write_jsonl(path, map(dataclasses.asdict, items))
    parts = list(parts_lib.cut(path, new_items.PART))
    load = functools.partial(new_items.load, _absolute(workdir))
    run(parts, PartHandler(load, _codes), folder, options)
    found = [scoring.path(folder, _CODES, part.number) for part in parts]
    rows = [row for made in found for row in json.loads(made.read_bytes())]
  return np.array(rows, np.int32)


def _codes(
  tokenizer: new_items.Tokenizer, part: parts_lib.Part
) -> dict[str, bytes]:
  rows = map(json.loads, parts_lib.read(part))
  items = [
    dataset_lib.Item(**{**row, 'categories': tuple(row['categories'])})
    for row in rows
  ]
  return {_CODES: json.dumps(tokenizer.codes(items).tolist()).encode()}


def _absolute(path: str) -> str:
  return str(pathlib.Path(path).expanduser().absolute())
