"""A proxy before a chat server that injects faults by a schedule."""

import http.client
import itertools
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.parse

from tests.teacher import fake_server

# Faults that pass; a client that tries again gets what it would have got.
TRANSIENT = (
  *('slow', 'late', 'drop_before', 'drop_middle', 'reset', 'busy', 'error'),
  *('half_json', 'no_json', 'bad_utf8', 'endless', 'flood'),
)
PASS = 'pass'


def by_chance(seed, faults=TRANSIENT, share=0.5):
  """Returns a schedule: number of a request -> what happens to it."""

  def schedule(number):
    rng = random.Random(f'{seed} {number}')
    return rng.choice(faults) if rng.random() < share else PASS

  return schedule


class Proxy(fake_server.Server):
  """The proxy.

  Attributes:
    seen: what happened to each request.
  """

  def __init__(self, upstream, schedule, late=60.0):
    """Starts nothing yet; use it as a context.

    Args:
      upstream: address of the server, up to /v1.
      schedule: number of a request, from 0 -> PASS or a fault.
      late: seconds that a late answer takes.
    """
    super().__init__(_Faulty)
    self.upstream = urllib.parse.urlsplit(upstream).netloc
    self.schedule = schedule
    self.late = late
    self.seen = []
    self._numbers = itertools.count()
    self._lock = threading.Lock()

  def draw(self):
    with self._lock:
      fault = self.schedule(next(self._numbers))
      self.seen.append(fault)
    return fault


class _Faulty(fake_server.Handler):
  def do_POST(self):
    body = self.receive()
    getattr(self, f'_{self.server.draw()}')(body)

  def _forward(self, body):
    """Asks the server behind: (status, its answer)."""
    connection = http.client.HTTPConnection(self.server.upstream, timeout=300)
    try:
      names = ('Content-Type', 'Authorization')
      headers = {name: self.headers[name] for name in names}
      connection.request('POST', self.path, body, headers)
      response = connection.getresponse()
      return response.status, response.read()
    finally:
      connection.close()

  def _hang_up(self):
    self.close_connection = True
    self.wfile.flush()
    self.connection.shutdown(socket.SHUT_RDWR)

  def _pass(self, body):
    self.send(*self._forward(body))

  def _slow(self, body):
    time.sleep(0.02)
    self._pass(body)

  def _late(self, body):
    self.server.closing.wait(self.server.late)
    self._hang_up()

  def _drop_before(self, body):
    self._hang_up()

  def _drop_middle(self, body):
    _, payload = self._forward(body)
    self.send_response(200)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(payload)))
    self.end_headers()
    self.wfile.write(payload[: len(payload) // 2])
    self._hang_up()

  def _reset(self, body):
    self.close_connection = True
    linger = struct.pack('ii', 1, 0)
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    self.connection.close()

  def _busy(self, body):
    self.send(429, b'{"error": {"message": "busy"}}', Retry_After='0')

  def _error(self, body):
    self.send(500, b'Internal Server Error')

  def _half_json(self, body):
    _, payload = self._forward(body)
    self.send(200, payload[: len(payload) // 2])

  def _no_json(self, body):
    self.send(200, b'<html>Please wait</html>')

  def _bad_utf8(self, body):
    _, payload = self._forward(body)
    self.send(200, re.sub(rb'("content":\s*")', b'\\1\xff', payload))

  def _chunks(self, chunk, pause):
    """Sends for ever, or until one of the two ends it."""
    self.send_response(200)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Transfer-Encoding', 'chunked')
    self.end_headers()
    self.close_connection = True
    while not self.server.closing.wait(pause):
      self.wfile.write(b'%x\r\n%b\r\n' % (len(chunk), chunk))

  def _endless(self, body):
    self._chunks(b' ', 0.01)

  def _flood(self, body):
    self._chunks(b' ' * 2**20, 0)

  def _other_model(self, body):
    status, payload = self._forward(body)
    value = json.loads(payload) | {'model': 'another-model'}
    self.send(status, json.dumps(value).encode())
