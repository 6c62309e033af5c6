"""A model of a finished run, in the files that other software serves."""

import pathlib

from gr2_jax import sharding
from gr2_jax.lm import hf, io, lora
from gr2_jax.rank import heads
from gr2_jax.run import artifacts, lineage, meshes


def export(
  workdir: pathlib.Path | str,
  stage: str,
  output: pathlib.Path | str,
  dtype: str = 'bfloat16',
) -> None:
  """Writes a Hugging Face directory: weights, config and tokenizer.

  LoRA's updates are added to the kernels first. Temperature and weights of the
  utilities stand in `head.json` beside them, where the run has utilities.

  Args:
    workdir: of a run that started from a pretrained model.
    stage: whose model: 'midtrain', 'sft' or 'rl'.
    output: where to; files of a model that lies there are replaced.
    dtype: of the tensors, 'bfloat16' or 'float32'.

  Raises:
    FileNotFoundError: the stage is not finished.
    ValueError: stages that do not belong together, or the vocabulary was
      trained here, and has no tokenizer that other software reads.
  """
  workdir = pathlib.Path(workdir).expanduser()
  output = pathlib.Path(output).expanduser()
  store = artifacts.Artifacts(lineage.config(workdir, stage), workdir)
  # First, because it may refuse.
  store.vocab.export(output)
  weights(store, stage, output, dtype)
  found = heads.load(store.model(stage))
  if found is not None:
    heads.save(output, *found)


def weights(
  store: artifacts.Artifacts,
  stage: str,
  output: pathlib.Path | str,
  dtype: str = 'bfloat16',
) -> None:
  """Writes weights and config alone, of any run.

  Args:
    store: of the run.
    stage: whose model, as in `export`.
    output: where to.
    dtype: of the tensors, 'bfloat16' or 'float32'.
  """
  mesh = meshes.make(store.config)
  shape, params = io.load(store.model(stage), mesh, sharding.TRAIN_RULES)
  shape, params = lora.merge(shape, params)
  vocab = store.vocab
  special = {'bos': vocab.bos, 'eos': vocab.eos, 'pad': vocab.pad}
  hf.save(
    output,
    shape,
    params,
    special={f'{name}_token_id': token for name, token in special.items()},
    dtype=dtype,
  )
