"""Headless Chromium, spoken to through a pipe (Chrome DevTools Protocol)."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser')
_FLAGS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe'),
  *('--disable-background-networking', '--disable-component-update'),
  *('--disable-sync', '--no-first-run'),
)


class Page:
  """One page.

  Attributes:
    events: what the browser told, by method and parameters.
  """

  def __init__(self, read, write):
    self._read, self._write = read, write
    self._number, self._session, self._rest = 0, None, b''
    self.events = []
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    attach = {'targetId': target, 'flatten': True}
    self._session = self.call('Target.attachToTarget', **attach)['sessionId']
    for domain in ('Page', 'Runtime', 'Log'):
      self.call(f'{domain}.enable')

  def _receive(self):
    while b'\0' not in self._rest:
      part = os.read(self._read, 1 << 20)
      assert part, 'Chromium has ended.'
      self._rest += part
    message, _, self._rest = self._rest.partition(b'\0')
    return json.loads(message)

  def call(self, method, **parameters):
    """Calls a method of the browser; returns its result."""
    self._number += 1
    asked = {'id': self._number, 'method': method, 'params': parameters}
    if self._session:
      asked['sessionId'] = self._session
    os.write(self._write, json.dumps(asked).encode() + b'\0')
    while True:
      found = self._receive()
      if found.get('id') == self._number:
        assert 'error' not in found, found['error']
        return found['result']
      self.events.append((found['method'], found['params']))

  def ask(self, code):
    """Returns the value of an expression of JavaScript."""
    asked = {'expression': code, 'returnByValue': True, 'awaitPromise': True}
    found = self.call('Runtime.evaluate', **asked)
    assert 'exceptionDetails' not in found, found['exceptionDetails']
    return found['result'].get('value')

  def wait(self, code):
    """Waits until an expression is true."""
    end = time.monotonic() + 60
    while not self.ask(code):
      assert time.monotonic() < end, code
      time.sleep(0.02)

  def type(self, selector, text):
    """Replaces the text of a field, as a person does."""
    self.ask(f'document.querySelector({json.dumps(selector)}).select()')
    self.call('Input.insertText', text=text)

  def click(self, selector):
    """Clicks the middle of an element with the mouse."""
    x, y = self.ask(f"""(() => {{
      const found = document.querySelector({json.dumps(selector)});
      found.scrollIntoView();
      const box = found.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    for kind in ('mousePressed', 'mouseReleased'):
      where = {'type': kind, 'x': x, 'y': y, 'button': 'left', 'clickCount': 1}
      self.call('Input.dispatchMouseEvent', **where)

  def show(self, width, dark=False):
    """Sets the width of the window, in pixels, and the colours asked for."""
    size = {'width': width, 'height': 900, 'mobile': False}
    self.call('Emulation.setDeviceMetricsOverride', deviceScaleFactor=1, **size)
    scheme = {'name': 'prefers-color-scheme'}
    scheme['value'] = 'dark' if dark else 'light'
    self.call('Emulation.setEmulatedMedia', features=[scheme])

  def picture(self, path):
    """Writes the whole page as PNG."""
    found = self.call('Page.captureScreenshot', captureBeyondViewport=True)
    path.write_bytes(base64.b64decode(found['data']))


@contextlib.contextmanager
def opened(profile):
  """Yields a page of a new browser.

  Args:
    profile: a directory for what it writes.
  """
  theirs_in, ours_out = os.pipe()
  ours_in, theirs_out = os.pipe()
  # It reads file 3 and writes file 4.
  shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
  process = subprocess.Popen(
    ['bash', '-c', shell, 'bash', BROWSER, *_FLAGS]
    + [f'--user-data-dir={profile}'],
    pass_fds=[theirs_in, theirs_out],
    stderr=subprocess.DEVNULL,
  )
  os.close(theirs_in)
  os.close(theirs_out)
  try:
    yield Page(ours_in, ours_out)
  finally:
    os.close(ours_out)
    os.close(ours_in)
    process.kill()
    process.wait()
