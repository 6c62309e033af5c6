"""Who may ask, and how much is read of what they send."""

import asyncio
import hmac
import ipaddress

from starlette import requests as http
from starlette.requests import ClientDisconnect

from gr2_jax.serve import requests


def check_token(request: http.Request, token: str) -> None:
  """Checks the bearer token of a request, in constant time.

  Args:
    request: the request.
    token: what it must bear; empty if none is asked for.

  Raises:
    requests.Refused: it bears another, or none (401).
  """
  given = request.headers.get('authorization', '')
  wanted = f'Bearer {token}'
  # Headers are bytes, which starlette reads as Latin-1.
  same = hmac.compare_digest(given.encode('latin-1'), wanted.encode())
  if token and not same:
    raise requests.Refused(
      *(401, 'unauthorized'),
      'Give the token of this server, as "Authorization: Bearer TOKEN".',
      {'WWW-Authenticate': 'Bearer'},
    )


def check_admin(request: http.Request, token: str, remote: bool) -> None:
  """Checks whether a request may change what is served.

  Args:
    request: the request.
    token: what it must bear; empty refuses everybody.
    remote: whether it may come from another machine.

  Raises:
    requests.Refused: it may not (401 or 403).
  """
  if not token:
    raise requests.Refused(
      *(403, 'forbidden'),
      'Changes are switched off: start the server with GR2_ADMIN_TOKEN in its '
      'environment.',
    )
  if not remote and not is_local(request.client and request.client.host):
    raise requests.Refused(
      *(403, 'forbidden'),
      'Changes are taken from this machine alone: start the server with '
      '--remote_admin to take them from others.',
    )
  check_token(request, token)


def is_local(host: str | None) -> bool:
  """Says whether an address is one of the loopback.

  Args:
    host: the address; None of a connection that has none.
  """
  try:
    address = ipaddress.ip_address(host or '')
  except ValueError:
    return False
  mapped = getattr(address, 'ipv4_mapped', None)
  return (mapped or address).is_loopback


async def read_body(request: http.Request, limits: requests.Limits) -> bytes:
  """Reads a body, no further than it may go.

  Args:
    request: the request.
    limits: its size, and how long it may take.

  Raises:
    requests.Refused: too large (413), too slow (408), or cut off (400).
  """
  large = requests.Refused(
    *(413, 'too_large', f'A body has at most {limits.body:,} bytes.'),
    {'Connection': 'close'},
  )
  declared = request.headers.get('content-length', '')
  if declared.isdecimal() and int(declared) > limits.body:
    raise large
  found = bytearray()
  try:
    async with asyncio.timeout(limits.body_seconds):
      async for chunk in request.stream():
        found += chunk
        if len(found) > limits.body:
          raise large
  except TimeoutError:
    raise requests.Refused(
      *(408, 'too_slow'),
      f'The body did not arrive within {limits.body_seconds:g} s.',
      {'Connection': 'close'},
    ) from None
  except ClientDisconnect:
    raise requests.refuse('The body was cut off.') from None
  return bytes(found)
