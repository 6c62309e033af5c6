r"""Lets a language model grade explanations of a finished run.

    python -m launch.judge --workdir=DIR --url=http://127.0.0.1:8000/v1 \
        --model=MODEL --sample=100

Grounding, consistency, flow and semantic IDs, each from 1 to 5, after
Diffusion-GR2: four requests a trace. MODEL runs behind any server of OpenAI's
chat completions (gr2_jax/teacher/README.md; the key comes from
GR2_TEACHER_API_KEY). Writes `DIR/judge/`; started again, it continues.
"""

from absl import app, flags

from launch import cli, start

_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of a run whose traces stage is finished.'
)
_URL = flags.DEFINE_string('url', None, 'Address of the server, up to /v1.')
_MODEL = flags.DEFINE_string('model', None, 'Its name for the model.')
_SAMPLE = flags.DEFINE_integer('sample', 100, 'How many traces.')
_CONCURRENCY = flags.DEFINE_integer('concurrency', 8, 'Requests at a time.')
_MAX_REQUESTS = flags.DEFINE_integer(
  'max_requests', 0, 'Budget of this start, tries again included; 0: none.'
)
_INSIST = flags.DEFINE_bool(
  'insist', False, 'Continue though none of the first answers has a score.'
)
flags.mark_flags_as_required(['workdir', 'url', 'model'])


def main(argv) -> None:
  """Grades and reports."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from gr2_jax.ranker import judging
  from gr2_jax.teacher import config, judge

  start.set_up()
  cfg = config.EndpointConfig(
    url=_URL.value,
    concurrency=_CONCURRENCY.value,
    max_requests=_MAX_REQUESTS.value,
  )
  summary = judging.run(
    _WORKDIR.value,
    lambda writer: judge.Judge(writer, cfg, _MODEL.value),
    _SAMPLE.value,
    insist=_INSIST.value,
  )
  print(summary)


if __name__ == '__main__':
  cli.run(main)
