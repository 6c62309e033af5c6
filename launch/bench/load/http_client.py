"""A client of HTTP/1.1 for loads: cheap, and misbehaving on demand.

Connections are kept. One that reads slowly takes a few bytes at a time, into a
small buffer of the kernel, so that the server has to wait for it.
"""

import asyncio
import json
import socket
from typing import Any

HOST = '127.0.0.1'
# Of a slow reader: bytes at a time, of the kernel's buffer, and seconds between
# two reads. Our choice: an answer of several lists then takes a good second.
_BITE, _BUFFER, _PAUSE = 512, 2048, 0.02
# Seconds after which an answer that has not come is lost. 128 lists that are
# written one after the other take minutes.
PATIENCE = 600.0


class Connection:
  """An open connection.

  Attributes:
    reader: of its bytes.
    writer: to it.
  """

  def __init__(
    self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
  ):
    """Takes what `connect` opened."""
    self.reader, self.writer = reader, writer

  async def send(
    self,
    path: str,
    document: Any,
    token: str = '',
    share: float = 1.0,
  ) -> None:
    """Sends a request.

    Args:
      path: of the route.
      document: the body, as JSON.
      token: that it bears; none if empty.
      share: of the body; the rest is announced, and never comes.
    """
    body = json.dumps(document).encode()
    bearer = f'Authorization: Bearer {token}\r\n' if token else ''
    head = (
      f'POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{bearer}'
      f'Content-Length: {len(body)}\r\n\r\n'
    )
    self.writer.write(head.encode() + body[: int(share * len(body))])
    await self.writer.drain()

  async def read(self, slowly: bool = False) -> tuple[int, bytes]:
    """Reads an answer.

    Args:
      slowly: a few bytes at a time.

    Returns:
      Its status and its body.

    Raises:
      EOFError: the connection ended before.
    """
    head = await self.reader.readuntil(b'\r\n\r\n')
    status, *lines = head.decode('latin-1').split('\r\n')
    headers = dict(line.lower().split(': ', 1) for line in lines if line)
    code = int(status.split()[1])
    if headers.get('transfer-encoding') == 'chunked':
      return code, await self._chunks()
    return code, await self._exactly(int(headers['content-length']), slowly)

  async def _exactly(self, length: int, slowly: bool) -> bytes:
    if not slowly:
      return await self.reader.readexactly(length)
    found = b''
    while len(found) < length:
      bite = await self.reader.read(min(_BITE, length - len(found)))
      if not bite:
        raise EOFError(f'The answer ended after {len(found)} of {length} bytes')
      found += bite
      await asyncio.sleep(_PAUSE)
    return found

  async def _chunks(self) -> bytes:
    found = b''
    while length := int(await self.reader.readuntil(b'\r\n'), 16):
      found += await self.reader.readexactly(length)
      await self.reader.readexactly(2)
    await self.reader.readexactly(2)
    return found

  async def more(self, seconds: float) -> bytes:
    """Returns what came behind the answer: nothing, of a sound server.

    Args:
      seconds: how long to wait for it.
    """
    try:
      return await asyncio.wait_for(self.reader.read(1), seconds)
    except TimeoutError:
      return b''

  def close(self) -> None:
    """Goes away, at once."""
    self.writer.transport.abort()


async def connect(port: int, slowly: bool = False) -> Connection:
  """Opens a connection.

  Args:
    port: of this machine.
    slowly: with small buffers.
  """
  made = socket.socket()
  made.setblocking(False)
  if slowly:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
  await asyncio.get_running_loop().sock_connect(made, (HOST, port))
  made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  limit = _BITE if slowly else 1 << 20
  return Connection(*await asyncio.open_connection(sock=made, limit=limit))


async def ask(
  port: int, path: str, document: Any, token: str = ''
) -> tuple[int, bytes]:
  """Sends one request on a connection of its own, and reads the answer.

  Args:
    port: of this machine.
    path: of the route.
    document: the body, as JSON.
    token: that it bears; none if empty.
  """
  made = await connect(port)
  try:
    await made.send(path, document, token)
    return await made.read()
  finally:
    made.close()
