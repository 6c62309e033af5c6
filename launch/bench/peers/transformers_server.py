"""A server of transformers, the peer of the group `serve`.

    python -m launch.bench.peers.transformers_server --workdir=DIR --port=0

The same HTTP and the same queue as `launch.serve`, and the same weights; but
the list is written token by token by `generate`, which a
`prefix_allowed_tokens_fn` keeps to a permutation of the candidates. It is the
list that our ranker writes with mode='list' and no words of explanation: the
item that comes first (`text.answer`), then all. `--batch_size=1` answers one
list at a time.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from gr2_jax import rerank
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.ranker import export
from gr2_jax.run import artifacts
from gr2_jax.text import answer as answer_lib
from launch import cli


def allowed(
  rows: Sequence[Sequence[tuple[int, ...]]], fmt: answer_lib.AnswerFormat
) -> Callable[[int, list[int]], list[int]]:
  """Returns which tokens may come next in each row of a batch.

  Args:
    rows: the semantic IDs of each row's candidates, as tokens.
    fmt: the answer format. Prompts end with its `open, top, sid_begin`.
  """
  levels = fmt.levels

  def following(row: int, written: list[int]) -> list[int]:
    if fmt.close in written:
      return [fmt.pad]
    first, listed = written[:levels], written[levels + 2 :]
    if len(written) < levels:
      return _continued(rows[row], written)
    if len(written) < levels + 2:
      return [(fmt.sid_end, fmt.mid)[len(written) - levels]]
    if len(listed) < levels:
      return [first[len(listed)]]
    whole, inside = divmod(len(listed), levels + 1)
    used = set(_entries(listed, whole, levels))
    left = [sid for sid in rows[row] if sid not in used]
    if inside == levels:
      return [fmt.sep] if len(left) > 1 else [fmt.close]
    return _continued(left, listed[whole * (levels + 1) :])

  return following


def _continued(sids: list[tuple[int, ...]], begun: list[int]) -> list[int]:
  """Returns the tokens that follow the beginning of a semantic ID."""
  place = len(begun)
  return sorted({sid[place] for sid in sids if list(sid[:place]) == begun})


def _entries(
  listed: list[int], count: int, levels: int
) -> list[tuple[int, ...]]:
  """Returns the first semantic IDs of a list, as tokens."""
  starts = range(0, count * (levels + 1), levels + 1)
  return [tuple(listed[i : i + levels]) for i in starts]


@dataclasses.dataclass(frozen=True)
class Engine:
  """Does for `serve.service` what `serve.engine.Engine` does.

  Attributes:
    workdir: of the run.
    model: whose model of the run.
    store: its artifacts.
    network: of transformers.
    explains: whether there are explanations: no.
    added: items that came after training: none.
  """

  workdir: pathlib.Path
  model: str
  store: artifacts.Artifacts
  network: Any
  explains: bool = False
  added: tuple[dataset_lib.Item, ...] = ()

  @property
  def name(self) -> str:
    """How answers call it."""
    return f'transformers/{self.model}'

  @property
  def items(self) -> Sequence[dataset_lib.Item]:
    """The catalogue."""
    return self.store.dataset.items

  @property
  def most_candidates(self) -> int:
    """Candidates of a list, at most."""
    return self.store.prompter.cfg.max_candidates

  def knows(self, item_id: str) -> bool:
    """Says whether the catalogue has an item."""
    return item_id in self.store.dataset.index

  def title(self, item_id: str) -> str:
    """Returns an item's title."""
    return self.items[self.store.dataset.index[item_id]].title

  def warm_up(self) -> None:
    """Answers one list."""
    ids = [item.item_id for item in self.items[: self.most_candidates]]
    self.answer('direct', [{'history': ids[:1], 'candidates': ids}], ['first'])

  def answer(
    self, kind: str, lists: Sequence[dict], where: Sequence[str]
  ) -> list[rerank.Answer]:
    """Ranks lists.

    Args:
      kind: 'direct'.
      lists: with `history` and `candidates`, ids that the catalogue has.
      where: unused; there are no errors.
    """
    index = self.store.dataset.index
    numbers = [
      [[index[x] for x in record[key]] for key in ('history', 'candidates')]
      for record in lists
    ]
    answers = []
    for record, order in zip(lists, self.write(numbers), strict=True):
      answer = {
        'order': [record['candidates'][place] for place in order],
        'scores': None,
        'explanation': '',
        'explanation_titles': '',
        'valid': True,
      }
      answers.append(rerank.Answer(record | answer, False))
    return answers

  def write(self, lists: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """Writes lists.

    Args:
      lists: histories and candidates, as item indices.

    Returns:
      The places of the candidates of each list, best first.
    """
    import torch

    vocab, fmt = self.store.vocab, self.store.vocab.answer_format()
    prompts, rows = [], []
    for history, candidates in lists:
      prompt = self.store.prompter.rerank(history, candidates)
      prompts.append([*prompt, fmt.open, fmt.top, fmt.sid_begin])
      tokens = vocab.sid_tokens(self.store.sids[candidates]).tolist()
      rows.append([tuple(sid) for sid in tokens])
    length = max(map(len, prompts))
    missing = [length - len(prompt) for prompt in prompts]
    ids = [
      [vocab.pad] * n + prompt
      for n, prompt in zip(missing, prompts, strict=True)
    ]
    seen = [
      [0] * n + [1] * len(prompt)
      for n, prompt in zip(missing, prompts, strict=True)
    ]
    following, head = allowed(rows, fmt), fmt.levels + 2
    with torch.inference_mode():
      found = self.network.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(seen),
        do_sample=False,
        max_new_tokens=head + max(map(len, rows)) * (fmt.levels + 1),
        eos_token_id=fmt.close,
        pad_token_id=vocab.pad,
        prefix_allowed_tokens_fn=lambda row, sent: following(
          row, sent[length:].tolist()
        ),
      )
    return [
      [row.index(sid) for sid in _entries(written, len(row), fmt.levels)]
      for row, written in zip(
        rows, found[:, length + head :].tolist(), strict=True
      )
    ]


def load(workdir: str, model: str = 'rl', **_: Any) -> Engine:
  """Loads a model of a finished run into transformers, in float32.

  Args:
    workdir: the run's directory.
    model: which one, as in `rerank.load`.
  """
  import transformers

  where = pathlib.Path(workdir).expanduser().absolute()
  store = artifacts.open_run(where, model)
  with tempfile.TemporaryDirectory() as directory:
    export.weights(store, model, directory, 'float32')
    network = transformers.AutoModelForCausalLM.from_pretrained(directory)
  return Engine(where, model, store, network.eval())


def main(argv) -> None:
  """Serves it."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments {argv[1:]}.')
  from launch import serve

  serve.run(load)


if __name__ == '__main__':
  # Its flags are those of the server, and of this process alone.
  from launch import serve

  flags.adopt_module_key_flags(serve)
  cli.run(main)
