"""Explanations graded by a language model, after Diffusion-GR2's four scores.

Grounding, consistency, flow and semantic IDs, each from 1 to 5 and each asked
about on its own. The names are the paper's; the questions and scales are ours:
one folder a version in `rubrics/`. A judge measures; nothing is accepted or
rejected by its word.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gr2_jax.teacher import base, endpoint, messages, protocol
from gr2_jax.teacher import config as teacher_config

ASPECTS = ('grounding', 'consistency', 'flow', 'sids')
RUBRICS = pathlib.Path(__file__).resolve().parent / 'rubrics'
_SCHEMA = {
  'type': 'object',
  'properties': {'score': {'type': 'integer', 'enum': [1, 2, 3, 4, 5]}},
  'required': ['score'],
  'additionalProperties': False,
}
# A thought in front of the score, for models that cannot do without.
_MAX_TOKENS = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Graded:
  """What is graded.

  Attributes:
    request: the list.
    ranking: item indices as they were ranked, best first.
    explanation: the words.
  """

  request: base.Request
  ranking: Sequence[int]
  explanation: str


class Judge:
  """A model on a server that grades.

  Attributes:
    name: the model's.
    identity: all that shapes its scores beside what is graded.
  """

  def __init__(
    self,
    writer: messages.Writer,
    cfg: teacher_config.EndpointConfig,
    model: str,
    version: str = 'v1',
  ):
    """Reads the rubrics; nothing is asked yet.

    Args:
      writer: writes the explained list.
      cfg: the server and how it is asked.
      model: the name by which it knows the model.
      version: a folder in RUBRICS.

    Raises:
      ModuleNotFoundError: the client library is not installed.
      ValueError: an address, a key or a name that cannot be used, or no such
        version.
    """
    known = sorted(path.name for path in RUBRICS.iterdir())
    if version not in known:
      raise ValueError(
        f'There is no version {version!r} of the rubrics; {RUBRICS} holds '
        f'{known}.'
      )
    self._texts = {
      name: (RUBRICS / version / f'{name}.txt').read_text('utf-8').strip()
      for name in ('system', *ASPECTS)
    }
    self._writer = writer
    self._client = endpoint.make_client(cfg, model)
    self.name = model
    text = json.dumps(self._texts)
    self.identity = {
      'judge': model,
      'version': version,
      'digest': hashlib.sha256(text.encode()).hexdigest()[:16],
    }

  def grade(
    self, asked: Sequence[tuple[Graded, str]]
  ) -> Iterator[tuple[int, int | None, str]]:
    """Asks for scores.

    Args:
      asked: what to grade, and in which of ASPECTS.

    Yields:
      (index of what was asked, its score from 1 to 5, or None where the judge
      gave none, all that the judge wrote), as they come.

    Raises:
      client.BudgetError: the budget is spent.
      protocol.EndpointError: the server does not do what is needed.
    """
    prompts = (self._prompt(graded, aspect) for graded, aspect in asked)
    with contextlib.closing(self._client.ask(prompts)) as groups:
      for group in groups:
        for index, found in group:
          yield index, read(found.text), found.text

  def _prompt(self, graded: Graded, aspect: str) -> protocol.Prompt:
    # The judge need not know what the writer was told.
    request = dataclasses.replace(graded.request, hint=None)
    shown = self._writer.messages(request)[-1]['content']
    answer = {
      'explanation': graded.explanation,
      'recommendations': [self._writer.sid(item) for item in graded.ranking],
    }
    content = (
      f'What the system was shown and asked:\n\n{shown}\n\n'
      f'What it answered:\n\n{json.dumps(answer, ensure_ascii=False)}\n\n'
      f'{self._texts[aspect]}'
    )
    return protocol.Prompt(
      messages=[
        {'role': 'system', 'content': self._texts['system']},
        {'role': 'user', 'content': content},
      ],
      temperature=0.0,
      top_p=1.0,
      max_tokens=_MAX_TOKENS,
      seed=0,
      schema=_SCHEMA,
    )


def read(text: str) -> int | None:
  """Reads a score; None for anything but {"score": 1 to 5}."""
  try:
    value = messages.parse_json(text)
  except ValueError:
    return None
  score = value.get('score') if isinstance(value, dict) else None
  whole = isinstance(score, int) and not isinstance(score, bool)
  return score if whole and 1 <= score <= 5 else None


def summary(scores: Iterable[tuple[str, int | None]]) -> Mapping[str, dict]:
  """Sums scores up.

  Args:
    scores: aspect and score.

  Returns:
    By aspect: `n` scores, their `mean` (None without any), and how many were
    `unreadable`.
  """
  found: dict[str, list] = {aspect: [] for aspect in ASPECTS}
  for aspect, score in scores:
    found[aspect].append(score)
  result = {}
  for aspect, values in found.items():
    readable = [value for value in values if value is not None]
    result[aspect] = {
      'n': len(readable),
      'mean': round(statistics.fmean(readable), 3) if readable else None,
      'unreadable': len(values) - len(readable),
    }
  return result
