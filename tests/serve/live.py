"""A server on a socket, on a thread of the tests."""

import contextlib
import threading
import time

import uvicorn

from gr2_jax.serve import app, service


@contextlib.contextmanager
def port(engine, **settings):
  """Yields the port where a server answers.

  Args:
    engine: what ranks.
    **settings: of the service.
  """
  patient = {'deadline': 60.0, 'explained_deadline': 60.0}
  made = service.Service(
    engine, service.Settings(**{**patient, **settings}), None
  )
  given = {'http': 'h11', 'ws': 'none', 'log_config': None}
  server = uvicorn.Server(uvicorn.Config(app.make(made), port=0, **given))
  thread = threading.Thread(target=server.run)
  thread.start()
  while not server.started or not made.ready:
    time.sleep(0.01)
  try:
    yield server.servers[0].sockets[0].getsockname()[1]
  finally:
    server.should_exit = True
    thread.join()
