"""What both sides get: shapes of decoders, lists, the text of tokens."""

import dataclasses
import json

import numpy as np
import tokenizers

from gr2_jax.lm.config import LMConfig
from gr2_jax.text import answer, lengths, semantic_ids
from launch.bench import contests

BF16 = contests.multiplies_bf16()
SIZES = {
  '2M': LMConfig(
    vocab_size=4096, width=160, layers=4, heads=4, kv_heads=2, head_dim=40,
    mlp_dim=480, bf16_matmul=BF16,
  ),
  '10M': LMConfig(
    vocab_size=8192, width=320, layers=6, heads=8, kv_heads=4, head_dim=40,
    mlp_dim=960, bf16_matmul=BF16,
  ),
  # SmolLM2-135M.
  '135M': LMConfig(
    vocab_size=49_152, width=576, layers=30, heads=9, kv_heads=3, head_dim=64,
    mlp_dim=1536, qk_norm=False, rope_theta=1e5, bf16_matmul=BF16,
  ),
}  # fmt: skip
LEVELS, CODES = 4, 16


@dataclasses.dataclass(frozen=True)
class Task:
  """What an RL step is made on; the lists follow from it.

  Attributes:
    model: shape of the decoder.
    prompt: P, tokens of each prompt.
    new: S, tokens of each answer; beside the list they are its words.
    queries: Q, prompts of a step.
    group: G, answers to each.
    candidates: K.
  """

  model: LMConfig
  prompt: int
  new: int = 64
  queries: int = 8
  group: int = 8
  candidates: int = 10

  @property
  def explanation(self) -> int:
    """Tokens of an answer that are words."""
    return self.new - lengths.answer(self.format.levels, self.candidates, 0)

  @property
  def format(self) -> answer.AnswerFormat:
    """Ids of delimiters and semantic IDs; the latter end the vocabulary."""
    return answer.AnswerFormat(
      open=4, top=2, mid=5, sep=6, close=7, eos=1, pad=0, sid_begin=3,
      sid_end=8,
      sid_offset=self.model.vocab_size - LEVELS * CODES, levels=LEVELS,
      codes=CODES,
    )  # fmt: skip

  def prompts(self) -> np.ndarray:
    """Returns random words: int32 [Q, P]."""
    rng = np.random.default_rng(0)
    shape = self.queries, self.prompt
    return rng.integers(9, self.format.sid_offset, shape).astype(np.int32)

  def sids(self) -> np.ndarray:
    """Returns the candidates' codes, all distinct: int32 [Q * K, L]."""
    count = self.queries * self.candidates
    rng = np.random.default_rng(1)
    flat = rng.choice(CODES**LEVELS, count, replace=False)
    return np.stack(np.unravel_index(flat, (CODES,) * LEVELS), -1).astype('i4')

  def targets(self) -> np.ndarray:
    """Returns the places of the true items: int32 [Q]."""
    rng = np.random.default_rng(2)
    return rng.integers(self.candidates, size=self.queries).astype(np.int32)

  def words(self) -> list[str]:
    """Returns the text of each token of the vocabulary."""
    texts = [f'w{i}' for i in range(self.model.vocab_size)]
    fmt = self.format
    texts[fmt.pad], texts[fmt.eos] = '<pad>', '<eos>'
    texts[fmt.open], texts[fmt.mid] = answer.OPEN, answer.MID
    texts[fmt.top] = answer.TOP
    texts[fmt.sid_begin] = semantic_ids.BEGIN
    texts[fmt.sid_end] = semantic_ids.END
    texts[fmt.sep], texts[fmt.close] = answer.SEP, answer.CLOSE
    for place in range(LEVELS * CODES):
      texts[fmt.sid_offset + place] = semantic_ids.token(*divmod(place, CODES))
    return texts

  def lists(self) -> list[list[list[int]]]:
    """Returns the candidates' codes of each prompt: [Q, K, L]."""
    return self.sids().reshape(self.queries, -1, LEVELS).tolist()


def tokenizer(task: Task) -> tokenizers.Tokenizer:
  """Returns a tokenizer of words, whose id i is the i-th of `task.words()`."""
  words = task.words()
  ids = {word: i for i, word in enumerate(words)}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, words[0]))
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  made.decoder = tokenizers.decoders.Fuse()
  fmt = task.format
  made.add_special_tokens([words[fmt.pad], words[fmt.eos]])
  return made


def dump(task: Task) -> str:
  """Writes a task as a line of JSON."""
  return json.dumps(dataclasses.asdict(task))


def load(line: str) -> Task:
  """Reads what `dump` wrote."""
  fields = json.loads(line)
  model = fields.pop('model')
  model['rope_scaling'] = tuple(model['rope_scaling'])
  return Task(LMConfig(**model), **fields)
