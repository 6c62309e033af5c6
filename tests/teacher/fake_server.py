"""A chat server whose answers follow from the prompt and the seed alone."""

import http.server
import json
import random
import sys
import threading
import time

FIELDS = {
  *('model', 'messages', 'temperature', 'top_p', 'seed', 'max_tokens'),
  *('max_completion_tokens', 'response_format'),
}


def write_ranking(messages, seed):
  """Answers prompts of `questions.FakeWriter`."""
  prompt = messages[-1]['content']
  ranking = json.loads(prompt)['candidates']
  random.Random(f'{prompt} {seed}').shuffle(ranking)
  return json.dumps({'ranking': ranking, 'explanation': f'Seed {seed} – so.'})


class Server(http.server.ThreadingHTTPServer):
  """An HTTP server in a thread, as a context; `url` ends in /v1.

  Its own mistakes, which a client would take for faults, are raised at the end.
  """

  daemon_threads = False
  request_queue_size = 64

  def __init__(self, handler):
    super().__init__(('127.0.0.1', 0), handler)
    self.url = f'http://127.0.0.1:{self.server_address[1]}/v1'
    self.closing = threading.Event()
    self._mistakes = []

  def __enter__(self):
    self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
    self._thread.start()
    return self

  def __exit__(self, *_):
    self.closing.set()
    self.shutdown()
    self._thread.join()
    self.server_close()
    if self._mistakes:
      raise self._mistakes[0]

  def handle_error(self, request, client_address):
    """Clients may go away."""
    if not isinstance(sys.exception(), OSError):
      self._mistakes.append(sys.exception())


class Handler(http.server.BaseHTTPRequestHandler):
  """Keeps connections, and silent."""

  protocol_version = 'HTTP/1.1'
  timeout = 5

  def log_message(self, *_):
    pass

  def receive(self):
    """Returns the body of a request."""
    length = int(self.headers['Content-Length'])
    body = self.rfile.read(length)
    if len(body) < length:
      raise ConnectionError('The client went away.')
    return body

  def send(self, status, payload, **headers):
    """Sends a whole answer."""
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(payload)))
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.end_headers()
    self.wfile.write(payload)


class FakeServer(Server):
  """The server.

  Attributes:
    requests: bodies, in the order in which they came.
    headers: of these.
    most: how many were answered at the same time at most.
  """

  def __init__(
    self, write=write_ranking, refuse=None, model=None, usage=True, seconds=0.0
  ):
    """Starts nothing yet; use it as a context.

    Args:
      write: (messages, seed) -> text, or the whole choice.
      refuse: (request, headers) -> None, or (status, body) to send instead.
      model: as which it answers; by default as what was asked.
      usage: whether tokens are counted.
      seconds: that an answer takes.
    """
    super().__init__(_Chat)
    self.write, self.refuse, self.model = write, refuse, model
    self.usage, self.seconds = usage, seconds
    self.requests, self.headers = [], []
    self.most = self._now = 0
    self._lock = threading.Lock()

  def enter(self, request, headers):
    with self._lock:
      self.requests.append(request)
      self.headers.append({k.lower(): v for k, v in headers.items()})
      self._now += 1
      self.most = max(self.most, self._now)

  def leave(self):
    with self._lock:
      self._now -= 1

  def answer(self, request):
    text = self.write(request['messages'], request['seed'])
    choice = {'message': {'role': 'assistant', 'content': text}}
    choice = text if isinstance(text, dict) else choice
    prompt = sum(len(m['content'].split()) for m in request['messages'])
    usage = {'prompt_tokens': prompt, 'completion_tokens': 7}
    return {
      'id': 'x',
      'object': 'chat.completion',
      'created': 0,
      'model': self.model or request['model'],
      'choices': [{'index': 0, 'finish_reason': 'stop', **choice}],
      **({'usage': usage} if self.usage else {}),
    }


class _Chat(Handler):
  def do_POST(self):
    request = json.loads(self.receive())
    self.server.enter(request, self.headers)
    try:
      assert self.path == '/v1/chat/completions', self.path
      assert set(request) <= FIELDS, set(request) - FIELDS
      refused = self.server.refuse and self.server.refuse(request, self.headers)
      if refused:
        status, value = refused
      else:
        time.sleep(self.server.seconds)
        status, value = 200, self.server.answer(request)
    finally:
      self.server.leave()
    self.send(status, json.dumps(value, ensure_ascii=False).encode())
