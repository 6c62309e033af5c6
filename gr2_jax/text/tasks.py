"""The four tasks of mid-training as random-access examples.

`next_item`: semantic-ID history -> next semantic ID. `item_text`: semantic ID
-> title and category path, and back. `persona`: a history of semantic IDs
interleaved with text, closed by what its user likes. `general_text`: the
corpus' own texts. The tasks are GR2's [P]; the exact wording is our choice.

Whatever is computed of users comes from `sequence(u)[:splits.train_end[u]]`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import splits as splits_lib
from gr2_jax.text import lengths, prompts, wording
from gr2_jax.text import vocab as vocab_lib

NAMES = ('next_item', 'item_text', 'persona', 'general_text')


@dataclasses.dataclass(frozen=True)
class TaskConfig:
  """What mid-training examples look like; all defaults are our choice.

  Attributes:
    stride: how many items apart two windows of a long history end.
    persona_items: items that a persona shows.
    description_tokens: a longer description is cut.
  """

  stride: int = 5
  persona_items: int = 6
  description_tokens: int = 96


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """A source of the language-model pipeline; examples are made when read.

  Attributes:
    name: the task.
    size: number of examples.
    make: index -> example, as `__getitem__` describes it.
  """

  name: str
  size: int
  make: Callable[[int], dict[str, np.ndarray]]

  def __len__(self) -> int:
    """Returns the number of examples."""
    return self.size

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns {'tokens': int32 [t], 'weights': float32 [t]}.

    Raises:
      IndexError: no such example.
    """
    if not 0 <= index < self.size:
      raise IndexError(f'{self.name} has {self.size} examples, no {index}.')
    return self.make(int(index))


def make(
  dataset: dataset_lib.Dataset,
  splits: splits_lib.Splits,
  sids: np.ndarray,
  vocab: vocab_lib.Vocab,
  *,
  prompt: prompts.PromptConfig,
  length: int,
  cfg: TaskConfig,
) -> dict[str, Examples]:
  """Makes the sources of the four tasks.

  Args:
    dataset: items and sequences.
    splits: how much of each sequence may be seen.
    sids: semantic IDs, int [I, L].
    vocab: the vocabulary.
    prompt: budgets that the examples share with the prompts.
    length: T, the longest example, in tokens.
    cfg: what examples show.

  Returns:
    Sources by name: those of `NAMES`.

  Raises:
    ValueError: `length` is too short for a retrieval window or an item, or the
      stride would leave items out.
  """
  check(vocab.levels, prompt, length, cfg)
  prompter = prompts.Prompter(vocab, dataset.items, sids, prompt)
  _check_length(
    length, max(map(len, prompter.segments)) + cfg.description_tokens + 3
  )
  window = prompt.retrieval_items + 1
  histories = [
    dataset.sequence(user)[:end] for user, end in enumerate(splits.train_end)
  ]
  return {
    'next_item': _next_item(histories, prompter, vocab, window, cfg.stride),
    'item_text': _item_text(dataset.items, prompter, vocab, cfg),
    'persona': _persona(
      histories,
      dataset.items,
      prompter,
      vocab,
      most=cfg.persona_items,
      length=length,
    ),
    'general_text': _general_text(dataset.items, vocab, length),
  }


def check(
  levels: int, prompt: prompts.PromptConfig, length: int, cfg: TaskConfig
) -> None:
  """Refuses settings that no catalogue could be read by.

  Args:
    levels: L of the semantic IDs.
    prompt: budgets that the examples share with the prompts.
    length: T, the longest example, in tokens.
    cfg: what examples show.

  Raises:
    ValueError: `length` is too short for a retrieval window, or the stride
      would leave items out.
  """
  window = prompt.retrieval_items + 1
  _check_length(length, lengths.history(levels, window))
  if not 1 <= cfg.stride <= window or cfg.persona_items < 1:
    raise ValueError(
      f'midtrain.tasks.stride = {cfg.stride} and persona_items = '
      f'{cfg.persona_items}: stride must lie in 1..{window} '
      '(text.prompt.retrieval_items + 1), or windows would leave items out, '
      'and a persona needs an item.'
    )


def _check_length(length: int, needed: int) -> None:
  if length < needed:
    raise ValueError(
      f'An example needs up to {needed} tokens, but length is {length}: raise '
      'it (midtrain.all.length, of SFT sft.train.length), or lower '
      'text.prompt.retrieval_items or midtrain.tasks.description_tokens.'
    )


def windows(
  lengths: np.ndarray, window: int, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cuts sequences into overlapping windows that end at their end.

  Args:
    lengths: int [U].
    window: items a window, at most.
    stride: distance between the ends of two windows.

  Returns:
    (user, begin, end), int [n] each: every position of a sequence of two items
    or more is in some window, and windows have two items or more.
  """
  users, begins, ends = [], [], []
  for user, length in enumerate(np.asarray(lengths).tolist()):
    end = length
    while end > 1:
      users.append(user)
      begins.append(max(end - window, 0))
      ends.append(end)
      if end <= window:
        break
      end = max(end - stride, 2)
  return np.array(users, int), np.array(begins, int), np.array(ends, int)


def _example(tokens: Sequence[int], first: int) -> dict[str, np.ndarray]:
  """An example that is learned from its token `first` on."""
  weights = np.zeros(len(tokens), np.float32)
  weights[max(first, 1) :] = 1
  return {'tokens': np.asarray(tokens, np.int32), 'weights': weights}


def _next_item(
  histories: Sequence[np.ndarray],
  prompter: prompts.Prompter,
  vocab: vocab_lib.Vocab,
  window: int,
  stride: int,
) -> Examples:
  """Retrieval prompts in which every item is a target (its SID tokens)."""
  user, begin, end = windows([len(h) for h in histories], window, stride)

  def example(index: int) -> dict[str, np.ndarray]:
    items = histories[user[index]][begin[index] : end[index]]
    tokens = np.asarray(prompter.sequence(items), np.int32)
    return {
      'tokens': tokens,
      'weights': (tokens >= vocab.sid_offset).astype(np.float32),
    }

  return Examples('next_item', len(user), example)


def _item_text(
  items: Sequence[dataset_lib.Item],
  prompter: prompts.Prompter,
  vocab: vocab_lib.Vocab,
  cfg: TaskConfig,
) -> Examples:
  """Example 2i describes item i, example 2i + 1 names its semantic ID."""
  describe = [vocab.bos, vocab.token('<|describe|>')]
  identify = [vocab.bos, vocab.token('<|identify|>')]

  def example(index: int) -> dict[str, np.ndarray]:
    item = index // 2
    text, segment = prompter.texts[item], prompter.segments[item]
    wrapped = segment[: vocab.levels + 2]
    if index % 2:
      head = [*identify, *text, vocab.sid_begin]
      return _example([*head, *wrapped[1:], vocab.eos], len(head))
    body = [*text, *_description(items[item], vocab, cfg), vocab.eos]
    return _example([*describe, *wrapped, *body], 2 + len(wrapped))

  return Examples('item_text', 2 * len(items), example)


def _description(
  item: dataset_lib.Item, vocab: vocab_lib.Vocab, cfg: TaskConfig
) -> list[int]:
  if not item.description:
    return []
  text = f'. {item.description}'
  return vocab.encode(text, added='none')[: cfg.description_tokens]


def _persona(
  histories: Sequence[np.ndarray],
  items: Sequence[dataset_lib.Item],
  prompter: prompts.Prompter,
  vocab: vocab_lib.Vocab,
  *,
  most: int,
  length: int,
) -> Examples:
  """Items as in a prompt's history, then what this user likes."""
  lengths = [len(h) for h in histories]
  user, begin, end = windows(lengths, most, most)
  head = [vocab.bos, vocab.token('<|persona|>')]

  def example(index: int) -> dict[str, np.ndarray]:
    shown = histories[user[index]][begin[index] : end[index]]
    closing = vocab.encode(
      wording.persona([items[i] for i in shown]), added='none'
    )
    room = length - len(head) - 1
    closing = closing[:room]
    body = []
    for item in reversed(shown):
      segment = prompter.segments[item]
      if len(segment) + len(body) + len(closing) > room:
        break
      body = segment + body
    return _example([*head, *body, *closing, vocab.eos], len(head))

  return Examples('persona', len(user), example)


def _general_text(
  items: Sequence[dataset_lib.Item], vocab: vocab_lib.Vocab, length: int
) -> Examples:
  """The items' own texts, and lists of titles by category, in plain words."""
  head = [vocab.bos, vocab.token('<|text|>')]
  room = length - len(head) - 1
  chunks = []
  for text in wording.plain_texts(items):
    tokens = vocab.encode(text, added='none')
    chunks += [tokens[i : i + room] for i in range(0, len(tokens), room)]

  def example(index: int) -> dict[str, np.ndarray]:
    return _example([*head, *chunks[index], vocab.eos], len(head))

  return Examples('general_text', len(chunks), example)
