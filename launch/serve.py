"""Serves a model of a finished run over HTTP.

    python -m launch.serve --workdir=DIR --port=8080
    curl localhost:8080/v1/rerank -d '{"history": ["50", "172"],
      "candidates": ["181", "174", "1"]}'

`/readyz` turns green when all shapes are compiled; `/openapi.json` describes
the requests, and `/` is a page to try them. The paths and the spelling of the
clients of Cohere and Jina are understood, too. SIGTERM and Ctrl-C stop taking
requests, answer those that are there, and end with exit code 0.

Environment variables: `GR2_SERVE_TOKEN`, which all requests must then bear
("Authorization: Bearer TOKEN"), and `GR2_ADMIN_TOKEN`, without which none can
change what is served (`/v1/reload`, `/v1/items`).
"""

import functools
import os
import pathlib
import signal
import socket
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from gr2_jax.serve import workers
from launch import cli, start

_WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a finished run.')
_MODEL = flags.DEFINE_enum(
  'model', 'rl', ['sft', 'rl', 'direct'], 'Which model of the run.'
)
_HOST = flags.DEFINE_string(
  'host', '127.0.0.1', 'Address to listen at; 0.0.0.0 for all machines.'
)
_PORT = flags.DEFINE_integer(
  'port', 8080, 'Port; 0 takes a free one.', lower_bound=0, upper_bound=65535
)
_EXPLAIN = flags.DEFINE_bool(
  'explain', True, 'Take requests for explanations, too.'
)
_CATALOGUE = flags.DEFINE_string(
  'catalogue',
  None,
  'Items that came after training, of launch.new_items. Those that come by '
  '/v1/items are written there; the file need not be there yet.',
)
_BATCH = flags.DEFINE_integer(
  'batch_size', 32, 'Lists answered at a time.', lower_bound=1
)
_WAIT = flags.DEFINE_float(
  'wait_ms', 2.0, 'How long a list waits for others.', lower_bound=0
)
_QUEUE = flags.DEFINE_integer(
  'queue', 256, 'Lists that may wait; more are refused (429).', lower_bound=1
)
_DEADLINE = flags.DEFINE_float(
  'deadline_ms',
  1000.0,
  'After which a list gets its incoming order.',
  lower_bound=1,
)
_EXPLAINED_DEADLINE = flags.DEFINE_float(
  'explained_deadline_ms',
  30_000.0,
  'The same, where an explanation is wanted.',
  lower_bound=1,
)
_CANDIDATES = flags.DEFINE_integer(
  'max_candidates',
  0,
  "Of a list; 0 for the run's. Lists with explanations have at most the run's.",
  lower_bound=0,
)
_CONNECTIONS = flags.DEFINE_integer(
  'connections', 1024, 'Open at a time; more get 503.', lower_bound=1
)
_DRAIN = flags.DEFINE_integer(
  'drain_seconds', 30, 'To answer what is there at SIGTERM.', lower_bound=0
)
_REMOTE = flags.DEFINE_bool(
  'remote_admin', False, 'Take changes from other machines, too.'
)
_WORKERS = flags.DEFINE_integer(
  'workers',
  1,
  'Processes behind the port, each with a model of its own; on CPUs alone. '
  'Several take no changes.',
  lower_bound=1,
)
flags.mark_flag_as_required('workdir')

_HTTP = {
  'http': 'h11',
  # Of a request without its body; a header flood ends with 400.
  'h11_max_incomplete_event_size': 16 << 10,
  'ws': 'none',
  # Seconds that an idle connection stays: clients and load balancers use theirs
  # again for a minute. After uvicorn's 5 s a request met its end, and was lost.
  'timeout_keep_alive': 75,
  'log_config': None,
  'access_log': False,
  'server_header': False,
  # Who asks is who connects, whatever headers say.
  'proxy_headers': False,
}


def main(argv) -> int | None:
  """Loads the model and serves it."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  return run()


def run(load: Callable[..., Any] | None = None) -> int | None:
  """Serves a model.

  Args:
    load: what gives the engine in place of `engine.load`, for comparisons.

  Returns:
    The exit code; None for 0.
  """
  listener = _listen(_HOST.value, _PORT.value)
  if _WORKERS.value > 1:
    # Before JAX is imported; what follows runs in each of them.
    code = workers.start(_WORKERS.value, listener)
    if code is not None:
      return code
  start.set_up()
  try:
    import uvicorn

    from gr2_jax.serve import app as app_lib
    from gr2_jax.serve import engine as engine_lib
    from gr2_jax.serve import service as service_lib
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f'To serve takes the package {error.name}: run '
      '`.venv/bin/pip install -r launch/requirements/serve.txt`, or '
      '`pip install "gr2_jax[serve]"`.'
    ) from error
  load = functools.partial(
    load or engine_lib.load,
    model=_MODEL.value,
    explain=_EXPLAIN.value,
    batch_size=_BATCH.value,
    longest=_CANDIDATES.value,
  )
  settings = service_lib.Settings(**_settings())
  there = settings.catalogue is not None and settings.catalogue.exists()
  engine = load(_WORKDIR.value, catalogue=settings.catalogue if there else None)
  service = service_lib.Service(engine, settings, load)
  engine_lib.watch_compilations(service.count_compilation)
  server = uvicorn.Server(
    uvicorn.Config(
      app_lib.make(service),
      timeout_graceful_shutdown=_DRAIN.value,
      limit_concurrency=_CONNECTIONS.value,
      **_HTTP,
    )
  )
  if _WORKERS.value > 1:
    # Until then connections wait, or go to others.
    service.start().result()
    if service.failed:
      raise RuntimeError(service.failed)
  _listen_and_run(server, listener, engine.name)
  if not service.ready and not service.failed:
    # A program that is being compiled cannot be stopped.
    logging.flush()
    os._exit(0)
  return None


def _settings() -> dict[str, Any]:
  """Returns the settings of the service that flags and environment give."""
  catalogue = _CATALOGUE.value
  return {
    'batch_size': _BATCH.value,
    'wait': _WAIT.value / 1000,
    'bound': _QUEUE.value,
    'deadline': _DEADLINE.value / 1000,
    'explained_deadline': _EXPLAINED_DEADLINE.value / 1000,
    'token': os.environ.get('GR2_SERVE_TOKEN', ''),
    'admin_token': os.environ.get('GR2_ADMIN_TOKEN', ''),
    'remote_admin': _REMOTE.value,
    'catalogue': pathlib.Path(catalogue).expanduser() if catalogue else None,
    'workers': _WORKERS.value,
  }


def _listen_and_run(server: Any, listener: socket.socket, name: str) -> None:
  """Serves until a signal has drained the server."""
  # It listens to signals itself, and sends them again when it has drained.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: None)
  # From here on connections wait, and none is refused until uvicorn answers.
  listener.listen(_CONNECTIONS.value)
  host, port = listener.getsockname()[:2]
  logging.info('Serving %s on http://%s:%d', name, host, port)
  server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
  """Takes a port, before the model is read."""
  try:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
  except OSError as error:
    raise OSError(
      f'--host={host} --port={port} cannot be taken ({error.strerror}): give '
      'another.'
    ) from error
  return made


if __name__ == '__main__':
  cli.run(main)
