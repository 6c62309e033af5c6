"""Bodies of requests, read and checked. Nothing here needs JAX.

A request of our own gives `history` and `candidates`, lists of item ids, or
`inputs`, a list of such objects. One in the spelling of Cohere and Jina gives
`query` and `documents`: a document is an item id or the text of a new item, and
the query a list of ids, ids with commas between them, or such a text. Ids may
be whole numbers, which become texts.
"""

import json
from collections.abc import Callable
from typing import Any

from gr2_jax.serve import requests

_OPTIONS = (
  *('model', 'top_n', 'explain', 'stream', 'return_documents', 'timeout_ms'),
)
_LISTS = ('history', 'candidates', 'scores', 'features', 'items')


def read_json(body: bytes, limits: requests.Limits) -> dict:
  """Reads a body.

  Args:
    body: bytes, UTF-8.
    limits: sizes.

  Returns:
    The object.

  Raises:
    Refused: not UTF-8, not JSON, no object, too deep, NaN, or half a character.
  """

  def constant(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON')

  try:
    found = json.loads(body.decode(), parse_constant=constant)
  except UnicodeDecodeError as error:
    raise requests.refuse(
      f'The body is not UTF-8 (byte {error.start}): encode it as such.'
    ) from None
  except (ValueError, RecursionError) as error:
    raise requests.refuse(f'The body is not JSON: {error}.') from None
  if not isinstance(found, dict):
    raise requests.refuse('The body must be a JSON object.')
  level: list[Any] = [found]
  for _ in range(limits.depth):
    level = [child for node in level for child in _children(node)]
  if level:
    raise requests.refuse(
      f'The body is nested deeper than {limits.depth} levels.'
    )
  if b'\\u' in body:
    try:
      json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
      raise requests.refuse(
        'A text holds half a character (a lone surrogate): fix its encoding.'
      ) from None
  return found


def _children(node: Any) -> list[Any]:
  """Returns what an object or a list holds, of those that hold more."""
  held = node.values() if isinstance(node, dict) else node
  return [x for x in held if isinstance(x, (dict, list))]


def read(
  body: bytes, knows: Callable[[str], bool], limits: requests.Limits
) -> requests.Request:
  """Reads a request to re-rank.

  Args:
    body: JSON.
    knows: says whether the catalogue has an item id.
    limits: sizes.

  Returns:
    The request. What is wrong with one list of several is its `error`.

  Raises:
    Refused: what is wrong with the request, or with its only list.
  """
  found = read_json(body, limits)
  other = bool({'query', 'documents'} & found.keys())
  many = 'inputs' in found
  if other:
    inputs = [_of_documents(found, knows, limits)]
  else:
    known = {*_OPTIONS, *(['inputs'] if many else _LISTS)}
    unknown = sorted(found.keys() - known)
    if unknown:
      raise requests.refuse(f'Unknown keys {unknown}: use {sorted(known)}.')
    inputs = _inputs(found, limits) if many else [_input(found, '', limits)]
  if not many and inputs[0].error:
    raise requests.refuse(inputs[0].error)
  explain, stream = _flag(found, 'explain'), _flag(found, 'stream')
  model = found.get('model')
  if model is not None and not isinstance(model, str):
    raise requests.refuse("'model' must be a text.")
  return requests.Request(
    inputs,
    many=many,
    model=model,
    top_n=_whole(found, 'top_n'),
    explain=explain or stream,
    stream=stream,
    return_documents=_flag(found, 'return_documents'),
    timeout_ms=_whole(found, 'timeout_ms'),
    probabilities=other,
  )


def _flag(found: dict, key: str) -> bool:
  value = found.get(key)
  if value is not None and not isinstance(value, bool):
    raise requests.refuse(f'{key!r} must be true or false.')
  return bool(value)


def _whole(found: dict, key: str) -> int | None:
  value = found.get(key)
  if value is None or (type(value) is int and value > 0):
    return value
  raise requests.refuse(f'{key!r} must be a whole number above 0.')


def _inputs(found: dict, limits: requests.Limits) -> list[requests.Input]:
  given = found['inputs']
  if not isinstance(given, list) or not 0 < len(given) <= limits.inputs:
    raise requests.refuse(
      f"'inputs' must be a list of 1 to {limits.inputs} objects with history "
      'and candidates.'
    )
  return [_input(x, f'inputs[{i}]: ', limits) for i, x in enumerate(given)]


def _input(given: Any, prefix: str, limits: requests.Limits) -> requests.Input:
  """Reads one list; `prefix` stands before its errors."""
  where = prefix.removesuffix(': ') or 'The request'
  if not isinstance(given, dict):
    return requests.Input({}, where, f'{where}: give an object.')
  record = {key: given[key] for key in _LISTS if given.get(key) is not None}
  for key in {'history', 'candidates'} & record.keys():
    if isinstance(record[key], list):
      record[key] = [_id(x) for x in record[key]]
  unknown = sorted(given.keys() - {*_LISTS, *_OPTIONS})
  problem = f'unknown keys {unknown}' if unknown else _oversize(record, limits)
  return requests.Input(
    record, where, f'{where}: {problem}.' if problem else ''
  )


def _id(value: Any) -> Any:
  """Returns a whole number as the item id that it is; others as they are."""
  return str(value) if type(value) is int else value


def _oversize(record: dict, limits: requests.Limits) -> str:
  """Says what of a list is too large; empty if nothing is."""
  for key, most in (
    ('history', limits.history),
    ('candidates', limits.candidates),
    ('items', limits.items),
  ):
    ids = record.get(key, [])
    if isinstance(ids, list) and len(ids) > most:
      return f'{key!r} has {len(ids)} items, more than {most}'
  if _longest(record) > limits.text:
    return f'a text has more than {limits.text} characters'
  return ''


def _longest(node: Any) -> int:
  """Returns the length of the longest text in a tree."""
  if isinstance(node, str):
    return len(node)
  if isinstance(node, dict):
    node = [*node, *node.values()]
  return max(map(_longest, node), default=0) if isinstance(node, list) else 0


def _of_documents(
  found: dict, knows: Callable[[str], bool], limits: requests.Limits
) -> requests.Input:
  """Reads a list in the spelling of Cohere and Jina."""
  documents, query = found.get('documents'), found.get('query')
  if not isinstance(documents, list):
    raise requests.refuse("'documents' must be a list of item ids or texts.")
  if isinstance(query, str):
    parts = [part.strip() for part in query.split(',')]
    query = parts if all(map(knows, parts)) else [query]
  elif not isinstance(query, list):
    raise requests.refuse("'query' must be a list of item ids, or a text.")
  texts: dict[str, str] = {}

  def name(text: str, kind: str, number: int) -> str:
    """Returns the id of a known item, or a new one for a text."""
    if knows(text):
      return text
    new = f'{kind} {number}'
    while knows(new):
      new = f'new {new}'
    texts[new] = text
    return new

  given = [_text(x, f'documents[{i}]') for i, x in enumerate(documents)]
  asked = [_text(x, f'query[{i}]') for i, x in enumerate(query)]
  record = {
    'history': [name(x, 'query', i) for i, x in enumerate(asked)],
    'candidates': [name(x, 'document', i) for i, x in enumerate(given)],
  }
  record['items'] = [
    {'item_id': item_id, 'title': text, 'categories': []}
    for item_id, text in texts.items()
  ]
  problem = _oversize(record, limits)
  where = 'The request'
  error = f'{where}: {problem}.' if problem else ''
  return requests.Input(record, where, error, texts)


def _text(value: Any, where: str) -> str:
  """Returns a document as text."""
  if isinstance(value, dict):
    value = value.get('id', value.get('text'))
  value = _id(value)
  if isinstance(value, str) and value.strip():
    return value
  raise requests.refuse(
    f'{where} must be an item id or a text, or an object with id or text.'
  )
