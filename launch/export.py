"""Writes a run's model as a Hugging Face directory.

    python -m launch.export --workdir=DIR --output=MODEL

Only runs that started from a pretrained model have a tokenizer that other
software reads. MODEL then holds `config.json`, `generation_config.json`,
`model.safetensors` (or several files with their index), `tokenizer.json` and
`tokenizer_config.json`, as `transformers.AutoModelForCausalLM` and
`AutoTokenizer` read them.
"""

from absl import app, flags

from launch import cli, start

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a run.')
_OUTPUT = flags.DEFINE_string('output', None, 'Where to write the model.')
_STAGE = flags.DEFINE_enum(
  'stage', 'rl', ['midtrain', 'sft', 'rl'], 'Whose model.'
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'bfloat16', ['bfloat16', 'float32'], 'Type of the tensors.'
)
flags.mark_flags_as_required(['workdir', 'output'])


def main(argv) -> None:
  """Exports."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax.ranker import export

  start.set_up()
  export.export(_WORKDIR.value, _STAGE.value, _OUTPUT.value, _DTYPE.value)


if __name__ == '__main__':
  cli.run(main)
