"""The requests that a teacher would get, and their cost; none is sent."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np

from gr2_jax import config as config_lib
from gr2_jax.lm import foreign
from gr2_jax.run import artifacts
from gr2_jax.stages import requests as requests_lib
from gr2_jax.teacher import acceptance, chat_tokenizer

INPUTS = ('data', 'sid', 'midtrain', 'candidates')
# So many prompts are measured, spread from the first list to the last.
_MEASURED = 256


@dataclasses.dataclass(frozen=True)
class Estimate:
  """How much a run asks and is answered.

  Attributes:
    lists: that are asked about.
    attempts: most requests a list.
    prompt: tokens of a prompt, on average.
    longest_prompt: tokens of the longest one that was measured.
    answer: tokens of an answer as long as one may be.
    max_tokens: where an answer is cut off.
  """

  lists: int
  attempts: int
  prompt: float
  longest_prompt: int
  answer: int
  max_tokens: int

  @property
  def requests(self) -> tuple[int, int]:
    """Fewest, where every first answer is accepted, and most: none is."""
    return self.lists, self.lists * self.attempts

  @property
  def tokens_in(self) -> tuple[int, int]:
    """What the teacher reads of the fewest and of the most requests."""
    fewest, most = self.requests
    return round(fewest * self.prompt), round(most * self.prompt)

  @property
  def tokens_out(self) -> tuple[int, int]:
    """What it writes: whole answers to the fewest, `max_tokens` to the most."""
    fewest, most = self.requests
    return fewest * min(self.answer, self.max_tokens), most * self.max_tokens

  def cost(self, price_in: float, price_out: float) -> tuple[float, float]:
    """Returns the cost of the fewest and of the most, by a million tokens."""
    pairs = zip(self.tokens_in, self.tokens_out, strict=True)
    fewest, most = ((i * price_in + o * price_out) / 1e6 for i, o in pairs)
    return fewest, most


class DryRun:
  """The requests of a run whose stages before traces are finished.

  Attributes:
    teacher: of the config: 'rules', 'endpoint' or 'local'.
    model: of the config.
    mode: of sampling.
    counted_by: what the tokens are counted by, in words.
  """

  def __init__(self, config: ml_collections.ConfigDict, workdir: pathlib.Path):
    """Reads the artifacts.

    Args:
      config: of the run.
      workdir: its directory.

    Raises:
      FileNotFoundError: a stage before traces is not finished, or there is no
        such local model.
      ValueError: no list holds its target, or the run asks no teacher.
    """
    _check(config, workdir)
    cfg = config_lib.build(requests_lib.TracesConfig, config.traces)
    self._cfg, self._store = cfg, artifacts.Artifacts(config, workdir)
    self.teacher, self.model, self.mode = cfg.teacher, cfg.model, cfg.mode
    self._writer = requests_lib.make_writer(self._store, cfg)
    self._chat = None
    self.counted_by = (
      "the run's own vocabulary, an estimate: a large model has longer pieces"
    )
    if self.teacher == 'local':
      self._chat = chat_tokenizer.read(foreign.find(self.model, 'traces.model'))
      self.counted_by = f'the tokenizer of {self._chat.name}'
    self._lists = self._store.sft_lists()

  def examples(self) -> Iterator[tuple[str, str, int]]:
    """Yields a prompt of each kind: (what it is, as it is sent, tokens)."""
    shown = [
      (
        mode,
        requests_lib.request(
          self._store, self._lists, 0, mode == acceptance.TARGETED
        ),
      )
      for mode in (acceptance.REJECTION, acceptance.TARGETED)
    ]
    shown.sort(key=lambda pair: pair[0] != self.mode)
    for kind, asked in shown:
      told = self._writer.messages(asked)
      note = f" (not asked: traces.mode is '{self.mode}')"
      note = '' if kind == self.mode else note
      yield f'{kind}{note}', self._show(told), self._count(told)

  def estimate(self) -> Estimate:
    """Counts requests, and measures prompts and an answer."""
    number = min(self._cfg.lists or len(self._lists), len(self._lists))
    rows = np.linspace(0, len(self._lists) - 1, min(number, _MEASURED))
    hinted = self.mode == acceptance.TARGETED
    requests = [
      requests_lib.request(self._store, self._lists, row, hinted)
      for row in rows.astype(int).tolist()
    ]
    lengths = [self._count(self._writer.messages(r)) for r in requests]
    longest = max(requests, key=lambda r: len(r.candidates))
    return Estimate(
      lists=number,
      attempts=self._cfg.attempts,
      prompt=float(np.mean(lengths)),
      longest_prompt=max(lengths),
      answer=self._length(self._writer.longest(longest)),
      max_tokens=self._cfg.sampling.max_tokens,
    )

  def _show(self, told: Sequence[dict[str, str]]) -> str:
    if self._chat:
      return self._chat.template.render(told)
    return '\n'.join(f'[{m["role"]}]\n{m["content"]}' for m in told)

  def _count(self, told: Sequence[dict[str, str]]) -> int:
    if self._chat:
      return len(self._chat.encode(told))
    return sum(self._length(message['content']) for message in told)

  def _length(self, text: str) -> int:
    if self._chat:
      return len(self._chat.tokenizer.encode(text).ids)
    # A foreign model has no tokens for semantic IDs: they are spelled.
    return len(self._store.vocab.encode(text, added='none'))


def describe(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  price_in: float = 0.0,
  price_out: float = 0.0,
) -> str:
  """Describes what the traces stage would ask, and its cost.

  Args:
    config: of the run.
    workdir: its directory; the stages before traces are finished.
    price_in: of a million tokens that the teacher reads, in any currency.
    price_out: of a million tokens that it writes.

  Returns:
    A prompt of each kind, then the numbers. `DryRun` says what can be wrong.
  """
  run = DryRun(config, workdir)
  blocks = [
    f'===== {kind}: {tokens:,} tokens =====\n{text}\n'
    for kind, text, tokens in run.examples()
  ]
  return '\n'.join([*blocks, *_numbers(run, price_in, price_out)])


def _numbers(run: DryRun, price_in: float, price_out: float) -> Iterator[str]:
  found = run.estimate()
  model = f', model {run.model!r}' if run.model else ''
  yield f'===== numbers: teacher {run.teacher!r}{model} ====='
  if run.teacher == 'rules':
    yield 'The rules teacher reads no prompt and costs nothing; others would:'
  yield f'tokens are counted by {run.counted_by}'
  yield f'lists with their target    {found.lists:>14,}'
  yield f'tokens of a prompt         {found.prompt:>14,.0f} on average'
  yield f'                           {found.longest_prompt:>14,} at most'
  yield f'tokens of an answer        {found.answer:>14,} as long as asked for'
  yield f'                           {found.max_tokens:>14,} where it is cut'
  yield f'                 {"at least":>24} {"at most":>16}'
  rows = [
    ('requests', found.requests),
    ('tokens in', found.tokens_in),
    ('tokens out', found.tokens_out),
  ]
  for name, (fewest, most) in rows:
    yield f'{name:17}{fewest:>24,} {most:>16,}'
  if price_in or price_out:
    fewest, most = found.cost(price_in, price_out)
    yield f'{"cost":17}{fewest:>24,.2f} {most:>16,.2f}'
  yield (
    f'at least: each list is answered once; at most: {found.attempts} times, '
    'and every answer is cut off'
  )
  if found.answer > found.max_tokens:
    yield (
      f'WARNING: an answer may take {found.answer:,} tokens, but is cut off at '
      f'{found.max_tokens:,}: raise traces.sampling.max_tokens.'
    )


def _check(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  if config.data.kind == 'synthetic':
    raise ValueError(
      "A synthetic world (data.kind = 'synthetic') knows its answers and asks "
      'no teacher: there is nothing to send.'
    )
  for stage in INPUTS:
    if not (workdir / stage / 'DONE').exists():
      raise FileNotFoundError(
        f'A dry run reads {workdir / stage}, which is not finished (no DONE in '
        f'it). Run launch.pipeline with --stages={",".join(INPUTS)} first.'
      )
