"""The routes of the server.

app = make(service)
"""

import contextlib
import functools
import json
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from absl import logging
from starlette import applications, responses, routing
from starlette import exceptions as http_exceptions
from starlette import requests as http

from gr2_jax.serve import access, answers, changes, openapi, parse, requests
from gr2_jax.serve import service as service_lib

_HERE = pathlib.Path(__file__).parent
# The page runs its own script and style, and asks this server alone.
_PAGE_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}
_PAGES = {
  '/': ('page.html', 'text/html'),
  '/page.js': ('page.js', 'text/javascript'),
  '/page.css': ('page.css', 'text/css'),
}
_Handler = Callable[[http.Request], Awaitable[responses.Response]]


def make(service: service_lib.Service) -> applications.Starlette:
  """Returns the application.

  Args:
    service: what answers; started and closed with the application.
  """

  @contextlib.asynccontextmanager
  async def live(app: applications.Starlette) -> AsyncIterator[None]:
    service.start()
    yield
    service.close()

  route = functools.partial(_route, service)
  rerank = functools.partial(_rerank, service)
  return applications.Starlette(
    routes=[
      *(route(path, rerank) for path in openapi.RERANK),
      route('/v1/models', functools.partial(_models, service), 'GET'),
      route('/v1/reload', functools.partial(_reload, service)),
      route('/v1/items', functools.partial(_items, service)),
      route('/healthz', functools.partial(_health, service), 'GET'),
      route('/readyz', functools.partial(_ready, service), 'GET'),
      route('/metrics', functools.partial(_metrics, service), 'GET'),
      route('/openapi.json', _openapi, 'GET'),
      *(route(path, _page, 'GET') for path in _PAGES),
    ],
    exception_handlers={
      requests.Refused: _refused,
      http_exceptions.HTTPException: _http_error,
      Exception: _broken,
    },
    lifespan=live,
  )


def _route(
  service: service_lib.Service,
  path: str,
  handler: _Handler,
  method: str = 'POST',
) -> routing.Route:
  """Returns a route whose requests are counted and timed."""

  async def timed(request: http.Request) -> responses.Response:
    begin, status = time.monotonic(), 500
    try:
      response = await handler(request)
      status = response.status_code
      return response
    except requests.Refused as error:
      status = error.status
      raise
    finally:
      service.metrics.requests.labels(path, status).inc()
      seconds = time.monotonic() - begin
      service.metrics.latency.labels(path).observe(seconds)

  return routing.Route(path, timed, methods=[method])


def _json(
  document: Any, status: int = 200, headers: dict | None = None
) -> responses.Response:
  """Returns a document; all that is not ASCII is escaped."""
  return responses.Response(
    json.dumps(document, allow_nan=False),
    status,
    headers,
    'application/json',
  )


async def _rerank(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  access.check_token(request, service.settings.token)
  limits = service.limits
  body = await access.read_body(request, limits)
  asked = parse.read(body, service.engine.knows, limits)
  service.check(asked)
  if not asked.stream:
    kind = service_lib.EXPLAINED if asked.explain else service_lib.DIRECT
    return _json(await service.answer(asked, kind))
  # The order is known before the stream begins, so that errors have a status.
  first = await service.answer(asked, service_lib.DIRECT)
  return responses.StreamingResponse(
    _events(service, asked, first),
    media_type='text/event-stream',
    headers={'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no'},
  )


async def _events(
  service: service_lib.Service, asked: requests.Request, first: dict
) -> AsyncIterator[str]:
  """Yields the order, then the answer with its explanation."""
  event = lambda name, data: f'event: {name}\ndata: {json.dumps(data)}\n\n'
  yield event('order', first)
  try:
    found = await service.answer(asked, service_lib.EXPLAINED)
  except requests.Refused as error:
    yield event('error', answers.error(error.kind, error.message))
  else:
    yield event('answer', {**found, 'id': first['id']})


async def _models(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  access.check_token(request, service.settings.token)
  engine = service.engine
  ids = [item.item_id for item in engine.items[:8]]
  model = {
    'id': engine.name,
    'object': 'model',
    'owned_by': 'gr2_jax',
    'catalogue': len(engine.items),
    'explains': engine.explains,
    'example': {'history': ids[:3], 'candidates': ids[3:]},
  }
  return _json({'object': 'list', 'data': [model]})


async def _change(service: service_lib.Service, request: http.Request) -> dict:
  """Returns what a request asks to change, if it may."""
  settings = service.settings
  access.check_admin(request, settings.admin_token, settings.remote_admin)
  if settings.workers > 1:
    raise requests.Refused(
      *(403, 'forbidden'),
      f'Changes are not taken with --workers={settings.workers}, of which a '
      'request reaches one: start the server again, or replicas with one '
      'worker each.',
    )
  body = await access.read_body(request, settings.limits)
  if not service.ready:
    raise service.not_ready()
  return parse.read_json(body, settings.limits)


async def _reload(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  found = await _change(service, request)
  given = found.get('workdir', str(service.engine.workdir))
  if found.keys() - {'workdir'} or not isinstance(given, str) or '\0' in given:
    raise requests.refuse('Give {"workdir": the directory of a run}, or {}.')
  return _json(await changes.reload(service, pathlib.Path(given)))


async def _items(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  found = await _change(service, request)
  if found.keys() != {'items'}:
    raise requests.refuse('Give {"items": [objects as in items.jsonl]}.')
  return _json(await changes.add(service, found['items']))


async def _health(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  if service.failed:
    return _json({'status': 'failed', 'reason': service.failed}, 503)
  return _json({'status': 'ok'})


async def _ready(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  if not service.ready:
    return _json({'status': 'compiling'}, 503)
  return _json({'status': 'ready'})


async def _metrics(
  service: service_lib.Service, request: http.Request
) -> responses.Response:
  found = service.metrics
  return responses.Response(found.text(), media_type=found.content_type)


async def _openapi(request: http.Request) -> responses.Response:
  return _json(openapi.document())


async def _page(request: http.Request) -> responses.Response:
  name, kind = _PAGES[request.url.path]
  text = (_HERE / name).read_text()
  return responses.Response(text, headers=_PAGE_HEADERS, media_type=kind)


async def _refused(
  request: http.Request, error: requests.Refused
) -> responses.Response:
  document = answers.error(error.kind, error.message)
  return _json(document, error.status, error.headers)


async def _http_error(
  request: http.Request, error: http_exceptions.HTTPException
) -> responses.Response:
  document = answers.error('http', f'{error.detail}: see /openapi.json.')
  return _json(document, error.status_code, error.headers)


async def _broken(
  request: http.Request, error: Exception
) -> responses.Response:
  logging.error('%s failed.', request.url.path, exc_info=error)
  return _json(answers.error('internal_error', 'The server failed.'), 500)
