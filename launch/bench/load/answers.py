"""Which answers a server must give, and the outcomes of requests."""

import collections
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

# Scores of one list differ by this in batches of other sizes, at most; those
# of different lists differ by far more.
_TOLERANCE = 1e-2


def problem(
  record: dict, output: dict, wanted: Sequence[float] | None = None
) -> str:
  """Says why an output is not the answer to a list; empty if it is.

  Args:
    record: the list, with `candidates`.
    output: as the server gives it for a list: `results`, `valid`.
    wanted: the score of each candidate, where it is known.
  """
  if 'results' not in output:
    return f'no results: {json.dumps(output)[:200]}'
  candidates, results = record['candidates'], output['results']
  places = sorted(result['index'] for result in results)
  if places != list(range(len(candidates))):
    return f'places {places} of {len(candidates)} candidates'
  for result in results:
    item, given = result['item_id'], candidates[result['index']]
    if item != given:
      return f'{item!r} where {given!r} was asked: the answer to another list'
  if 'fallback' in output:
    return ''
  scores = [result['relevance_score'] for result in results]
  if None in scores:
    # The list was written: its order is the whole answer.
    return '' if output['valid'] else 'not valid'
  if scores != sorted(scores, reverse=True):
    return f'scores {scores} that do not fall'
  if wanted is not None:
    for result, score in zip(results, scores, strict=True):
      if abs(score - wanted[result['index']]) > _TOLERANCE:
        return (
          f'{result["item_id"]!r} has {score}, and alone '
          f'{wanted[result["index"]]}: the answer to another list'
        )
  return ''


def scores(output: dict) -> list[float]:
  """Returns the score of each candidate, in their incoming order."""
  ranked = sorted(output['results'], key=lambda result: result['index'])
  return [result['relevance_score'] for result in ranked]


def events(body: bytes) -> dict[str, dict]:
  """Reads server-sent events.

  Args:
    body: of the answer.

  Returns:
    The document of each event, by its name.
  """
  found = {}
  for event in body.decode().split('\n\n'):
    if event:
      name, data = event.split('\n')
      found[name.removeprefix('event: ')] = json.loads(
        data.removeprefix('data: ')
      )
  return found


@dataclasses.dataclass
class Account:
  """The outcomes of the requests of patient clients.

  Attributes:
    asked: requests that wait for their answer.
    counts: of them, by what came: 'answered', 'fallback' (of these, with the
      incoming order of a list), 'refused' (429 or 503), 'lost', 'doubled',
      'wrong'.
    problems: the first twenty of the last three, in words.
    ids: of all answers.
  """

  asked: int = 0
  counts: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  problems: list[str] = dataclasses.field(default_factory=list)
  ids: set[str] = dataclasses.field(default_factory=set)

  @property
  def sound(self) -> bool:
    """Whether each request has its own answer, once, or a refusal."""
    bad = sum(self.counts[kind] for kind in ('lost', 'doubled', 'wrong'))
    ends = sum(self.counts[kind] for kind in ('answered', 'refused', 'lost'))
    return not bad and ends == self.asked

  def complain(self, kind: str, text: str) -> None:
    """Books a fault.

    Args:
      kind: 'lost', 'doubled' or 'wrong'.
      text: what it was.
    """
    self.counts[kind] += 1
    if len(self.problems) < 20:
      self.problems.append(f'{kind}: {text}')

  def book(
    self,
    lists: Sequence[dict],
    status: int,
    document: Any,
    wanted: Sequence[Sequence[float] | None],
  ) -> None:
    """Books an answer.

    Args:
      lists: the lists that were asked.
      status: of HTTP.
      document: that came.
      wanted: scores of each list, or None.
    """
    if status in (429, 503):
      self.counts['refused'] += 1
      return
    self.counts['answered'] += 1
    if status != 200:
      self.complain('wrong', f'status {status}: {json.dumps(document)[:200]}')
      return
    if document['id'] in self.ids:
      self.complain('doubled', document['id'])
    self.ids.add(document['id'])
    outputs = document.get('outputs', [document])
    if len(outputs) != len(lists):
      self.complain('wrong', f'{len(outputs)} outputs for {len(lists)} lists')
      return
    for record, output, own in zip(lists, outputs, wanted, strict=True):
      if text := problem(record, output, own):
        self.complain('wrong', text)
        return
    if any('fallback' in output for output in outputs):
      self.counts['fallback'] += 1
