"""The interface of the server as an OpenAPI document."""

import gr2_jax

# One handler: ours, and the paths of the clients of Cohere, Jina and vLLM.
RERANK = ('/v1/rerank', '/rerank', '/v2/rerank')
_TEXT = {'type': 'string'}
_TEXTS = {'type': 'array', 'items': _TEXT}
_ID = {'type': ['string', 'integer']}
_IDS = {'type': 'array', 'items': _ID}
_FLAG = {'type': 'boolean', 'default': False}
_COUNT = {'type': 'integer', 'minimum': 1}
_ITEM = {
  'type': 'object',
  'required': ['item_id', 'title', 'categories'],
  'properties': {
    'item_id': _ID,
    'title': _TEXT,
    'categories': _TEXTS,
    'brand': _TEXT,
    'price': {'type': 'number'},
    'description': _TEXT,
  },
}
_LIST = {
  'history': {**_IDS, 'description': 'Item ids, oldest first.'},
  'candidates': {**_IDS, 'description': 'Item ids in their incoming order.'},
  'scores': {
    'type': 'array',
    'items': {'type': 'number'},
    'description': "The retriever's, a number a candidate.",
  },
  'features': {
    'type': 'object',
    'additionalProperties': {'type': 'array', 'items': {'type': 'number'}},
    'description': 'Columns of the run, a number a candidate.',
  },
  'items': {
    'type': 'array',
    'items': _ITEM,
    'description': 'New items, for this request alone.',
  },
}
_OPTIONS = {
  'model': {**_TEXT, 'description': 'As of /v1/models; may be left out.'},
  'top_n': {**_COUNT, 'description': 'Results of an answer.'},
  'explain': {**_FLAG, 'description': 'Write an explanation, and rank by it.'},
  'stream': {
    **_FLAG,
    'description': 'Server-sent events: `order`, then `answer` (explained).',
  },
  'return_documents': {**_FLAG, 'description': 'Titles beside the results.'},
  'timeout_ms': {
    **_COUNT,
    'description': 'A deadline earlier than that of the server.',
  },
}
_OBJECT = {'type': 'object'}


def document() -> dict:
  """Returns the document."""
  answer = _answer()
  own = _OBJECT | {
    'required': ['history', 'candidates'],
    'properties': {**_LIST, **_OPTIONS},
    'additionalProperties': False,
  }
  one = _OBJECT | {
    'required': ['history', 'candidates'],
    'properties': _LIST,
  }
  many = _OBJECT | {
    'required': ['inputs'],
    'properties': {'inputs': {'type': 'array', 'items': one}, **_OPTIONS},
    'additionalProperties': False,
  }
  cohere = _OBJECT | {
    'required': ['query', 'documents'],
    'properties': {
      'query': {'oneOf': [_TEXT, _IDS]},
      'documents': {'type': 'array', 'items': {'oneOf': [_ID, _OBJECT]}},
      **_OPTIONS,
    },
  }
  rerank = _call(
    'Re-rank a list, or several.',
    {'oneOf': [own, many, cohere]},
    answer,
    (400, 401, 404, 408, 413, 429, 503),
  )
  change = (400, 401, 403, 409, 503)
  workdir = _OBJECT | {'properties': {'workdir': _TEXT}}
  news = _OBJECT | {
    'required': ['items'],
    'properties': {'items': {'type': 'array', 'items': _ITEM}},
  }
  get = lambda text: {'get': _operation(text, _OBJECT, (503,))}
  return {
    'openapi': '3.1.0',
    'info': {'title': 'gr2_jax', 'version': gr2_jax.__version__},
    'paths': {
      **{path: {'post': rerank} for path in RERANK},
      '/v1/models': get('The model that is served.'),
      '/v1/reload': {
        'post': _call('Serve another run.', workdir, _OBJECT, change)
      },
      '/v1/items': {
        'post': _call('Add items to the catalogue.', news, _OBJECT, change)
      },
      '/healthz': get('Whether the server lives.'),
      '/readyz': get('Whether all shapes are compiled.'),
      '/metrics': get('Numbers for Prometheus.'),
      '/openapi.json': get('This document.'),
    },
  }


def _answer() -> dict:
  """Returns the schema of an answer."""
  result = _OBJECT | {
    'required': ['index', 'relevance_score'],
    'properties': {
      'index': {'type': 'integer', 'description': 'Among the candidates.'},
      'item_id': _TEXT,
      'relevance_score': {
        'type': ['number', 'null'],
        'description': 'The utility; in the spelling of Cohere within 0 and 1.',
      },
      'document': _OBJECT | {'properties': {'text': _TEXT}},
    },
  }
  return _OBJECT | {
    'required': ['id', 'model', 'usage', 'timings'],
    'properties': {
      'id': _TEXT,
      'model': _TEXT,
      'results': {'type': 'array', 'items': result},
      'explanation': _TEXT,
      'valid': {'type': 'boolean'},
      'fallback': {'type': 'string', 'enum': ['deadline']},
      'unknown': _TEXTS,
      'unknown_history': {'type': 'integer'},
      'outputs': {
        'type': 'array',
        'items': _OBJECT,
        'description': 'Of `inputs`: an answer or an error each.',
      },
      'usage': _OBJECT,
      'timings': _OBJECT,
    },
  }


def _call(text: str, body: dict, answer: dict, failures: tuple) -> dict:
  """Returns an operation with a body."""
  content = {'application/json': {'schema': body}}
  return {
    **_operation(text, answer, failures),
    'requestBody': {'required': True, 'content': content},
  }


def _operation(text: str, answer: dict, failures: tuple) -> dict:
  """Returns an operation."""
  inner = _OBJECT | {'properties': {'type': _TEXT, 'message': _TEXT}}
  error = _OBJECT | {'properties': {'error': inner}}
  response = lambda text, schema: {
    'description': text,
    'content': {'application/json': {'schema': schema}},
  }
  return {
    'summary': text,
    'responses': {
      '200': response('The answer.', answer),
      **{str(status): response('An error.', error) for status in failures},
    },
  }
