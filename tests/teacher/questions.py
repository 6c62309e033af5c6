"""A small stand-in for the prompts, and teachers that use it."""

import dataclasses
import json

import numpy as np

from gr2_jax.teacher import base, endpoint
from gr2_jax.teacher import config as teacher_config


@dataclasses.dataclass(frozen=True)
class Sampling:
  top_p: float = 0.9
  max_tokens: int = 64

  def at(self, attempt):
    return 0.5 + 0.25 * attempt


class FakeWriter:
  identity = {'version': 'v0', 'digest': 'abc'}

  def messages(self, request):
    lists = {
      'history': request.history.tolist(),
      'candidates': request.candidates.tolist(),
    }
    return [
      {'role': 'system', 'content': 'Rank the candidates.'},
      {'role': 'user', 'content': json.dumps(lists)},
    ]

  def read(self, text, request):
    try:
      value = json.loads(text)
    except ValueError:
      return base.Answer([], '', problem='not_json')
    return base.Answer(value['ranking'], value['explanation'])

  def schema(self, request):
    return {'type': 'object', 'properties': {'ranking': {'type': 'array'}}}


def teacher(url, model='m', spent=(0, 0), **changes):
  settings = dict(concurrency=4, timeout=5.0, retries=3, backoff=0.001)
  cfg = teacher_config.EndpointConfig(url=url, **settings | changes)
  return endpoint.EndpointTeacher(FakeWriter(), Sampling(), cfg, model, spent)


def requests(count):
  return [
    base.Request(np.arange(i, i + 3), np.arange(10 * i, 10 * i + 5))
    for i in range(count)
  ]


def answers(asked, count=6, attempt=0, into=None):
  """Asks; index -> answer. `into` has those that came before an error."""
  found = {} if into is None else into
  seeds = [100 + i for i in range(count)]
  for group in asked.answer(requests(count), attempt, seeds):
    for index, answer in group:
      assert index not in found
      found[index] = answer
  return found


def rankings(found):
  return {i: (a.ranking, a.explanation) for i, a in found.items()}
