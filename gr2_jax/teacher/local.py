"""A larger checkpoint as teacher, in our own decoder and sampler."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from gr2_jax import sharding
from gr2_jax.data import padding
from gr2_jax.decode import filters, sampler
from gr2_jax.decode import items as items_lib
from gr2_jax.lm import decoder, foreign, gguf, hf
from gr2_jax.lm.config import LMConfig
from gr2_jax.teacher import acceptance, base, chat_tokenizer, messages
from gr2_jax.teacher import config as teacher_config
from gr2_jax.text import answer, tokenizer_files

_keys = jax.jit(jax.vmap(jax.random.key))


@dataclasses.dataclass(frozen=True)
class LocalConfig:
  """How a local teacher runs; all defaults are our choice.

  Attributes:
    batch_size: lists decoded at a time; rounded up to fit the mesh.
    bucket: prompts are padded to a multiple of this many tokens, each one to
      its own: a program is compiled for each multiple.
    param_dtype: of the kernels.
    bf16_matmul: matmul operands in bfloat16.
    scan: one scanned block for all layers; off is faster on CPU.
    attention: what computes attention over prompts; see `LMConfig`.
  """

  batch_size: int = 8
  bucket: int = 256
  param_dtype: Literal['float32', 'bfloat16'] = 'bfloat16'
  bf16_matmul: bool = True
  scan: bool = True
  attention: Literal['plain', 'xla', 'cudnn', 'splash'] = 'plain'

  def __post_init__(self):
    for name in ('batch_size', 'bucket'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'traces.local.{name} is {getattr(self, name)}; give 1 or more.'
        )


class LocalTeacher:
  """A pretrained model that answers messages; see `base.Teacher`.

  What is drawn for a request depends on its seed alone, not on what else is in
  its batch: each row has a key of its own, and batches of one prompt length
  have one shape, those that are not full included.

  Attributes:
    name: of the model's directory or file.
    identity: the model's files, what it is told, and how it samples.
  """

  def __init__(
    self,
    chat: chat_tokenizer.ChatTokenizer,
    config: LMConfig,
    params: Any,
    *,
    mesh: jax.sharding.Mesh,
    writer: messages.Writer,
    sampling: teacher_config.SamplingConfig,
    cfg: LocalConfig,
    files: str = '',
  ):
    """Takes a model; `load` reads one.

    Args:
      chat: its tokenizer and template.
      config: its shape.
      params: its parameters, on `mesh` by the decoding rules.
      mesh: devices of this process.
      writer: writes and reads.
      sampling: temperatures and budget.
      cfg: batches.
      files: hash of the model's files, for `identity`.
    """
    self.name = chat.name
    self.identity = {
      'model': chat.name,
      'files': files,
      'param_dtype': config.param_dtype,
      'bf16_matmul': config.bf16_matmul,
      'prompt': writer.identity,
      'sampling': dataclasses.asdict(sampling),
    }
    self._chat = chat
    self._config, self._params = decoder.narrow(config, params)
    self._mesh, self._writer, self._sampling = mesh, writer, sampling
    devices = sharding.batch_parts(mesh)
    self._size = padding.round_up(cfg.batch_size, devices)
    self._bucket = cfg.bucket
    first, *others = chat.ends
    # Of the format of our own answers a free text has only the end.
    self._format = answer.AnswerFormat(
      *(-1, -1, -1, -1, -1),
      eos=first,
      pad=first,
      sid_begin=-1,
      sid_end=-1,
      sid_offset=-1,
      levels=1,
      codes=1,
      other_ends=tuple(others),
    )

  def answer(
    self, requests: Sequence[base.Request], attempt: int, seeds: Sequence[int]
  ) -> Iterator[list[tuple[int, base.Answer]]]:
    """Answers all requests, a batch of like prompt length at a time.

    Args:
      requests: the lists.
      attempt: 0 for the first time, then 1, ...; it sets the temperature.
      seeds: one a request, in [0, 2^31).

    Yields:
      Pairs of (index of a request, its answer), a batch each time.

    Raises:
      ValueError: a prompt with its answer exceeds what the model was trained
        for.
    """
    written = [
      self._chat.encode(self._writer.messages(request)) for request in requests
    ]
    for tokens in written:
      self._check_length(len(tokens))
    shapes = [(padding.round_up(len(x), self._bucket),) for x in written]
    for (width,), chosen in padding.by_shape(shapes, self._size):
      rows = chosen.tolist()
      batch = [written[row] for row in rows]
      drawn = self._decode(batch, width, attempt, [seeds[r] for r in rows])
      yield [
        (row, self._read(requests[row], len(written[row]), tokens))
        for row, tokens in zip(rows, drawn, strict=True)
      ]

  def _check_length(self, prompt: int) -> None:
    most, written = self._config.max_positions, self._sampling.max_tokens
    if most and prompt + written > most:
      raise ValueError(
        f'A prompt of {prompt} tokens and an answer of up to {written} exceed '
        f'the {most} positions of {self.name}: lower traces.sampling.'
        'max_tokens or traces.prompt.history_items, or take a model for longer '
        'texts.'
      )

  def _decode(
    self,
    batch: Sequence[list[int]],
    width: int,
    attempt: int,
    seeds: Sequence[int],
  ) -> list[list[int]]:
    """Returns the tokens that follow each prompt, the end token included."""
    tokens, valid = padding.batch(batch, width, self._format.pad)
    inputs = {
      'tokens': tokens,
      'valid': valid,
      'seeds': np.asarray(seeds, np.uint32),
      'sids': np.zeros((len(batch), 0, 1), np.int32),
      'real': np.zeros((len(batch), 0), bool),
    }
    filled = padding.fill(inputs, self._size)
    inputs = sharding.shard_batch(self._mesh, filled)
    with sharding.use(self._mesh, sharding.DECODE_RULES):
      samples = sampler.sample(
        self._config,
        self._params,
        inputs['tokens'],
        inputs['valid'],
        _keys(inputs['seeds']),
        num_samples=1,
        max_new_tokens=self._sampling.max_tokens,
        temperature=jnp.float32(self._sampling.at(attempt)),
        fmt=self._format,
        items=items_lib.Items(*(inputs['sids'], inputs['real']) * 2),
        constrain=False,
        explanation_tokens=0,
        filters=filters.make(top_p=self._sampling.top_p),
      )
    found = (samples.tokens[:, 0], samples.mask[:, 0])
    tokens, mask = sharding.fetch(self._mesh, found)
    return [tokens[row][mask[row]].tolist() for row in range(len(batch))]

  def _read(
    self, request: base.Request, prompt: int, tokens: list[int]
  ) -> base.Answer:
    ended = bool(tokens) and tokens[-1] in self._chat.ends
    text = self._chat.decode(tokens[:-1] if ended else tokens)
    read = base.Answer([], '', acceptance.CUT_OFF, text=text)
    if ended:
      read = self._writer.read(text, request)
    return dataclasses.replace(
      read, prompt_tokens=prompt, completion_tokens=len(tokens)
    )


def load(
  model: str,
  mesh: jax.sharding.Mesh,
  writer: messages.Writer,
  sampling: teacher_config.SamplingConfig,
  cfg: LocalConfig,
) -> LocalTeacher:
  """Loads a checkpoint of any family that `lm/` knows.

  Args:
    model: a Hugging Face directory, a GGUF file, or an asset that holds one.
    mesh: where to; of this process alone.
    writer: writes and reads.
    sampling: temperatures and budget.
    cfg: how it runs.

  Returns:
    The teacher.

  Raises:
    FileNotFoundError: there is no such model.
    ValueError: it cannot be computed here, has no chat template, or the mesh
      spans several processes.
  """
  owners = {device.process_index for device in mesh.devices.flat}
  if owners != {jax.process_index()}:
    raise ValueError(
      f'A local teacher is asked by one process, but the mesh spans '
      f'{len(owners)}: run --stages=traces in a single process, '
      'then the other stages again in all of them.'
    )
  path = foreign.find(model, 'traces.model')
  chat = chat_tokenizer.read(path)
  settings = dataclasses.asdict(cfg)
  del settings['batch_size'], settings['bucket']
  rules = sharding.DECODE_RULES
  if path.is_file():
    config, params, _ = gguf.load(path, mesh, rules, **settings)
  else:
    config, params = hf.load(path, mesh, rules, **settings)
  ids = tokenizer_files.size(chat.tokenizer)
  foreign.check_rows(path, ids, config.vocab_size)
  return LocalTeacher(
    chat,
    config,
    params,
    mesh=mesh,
    writer=writer,
    sampling=sampling,
    cfg=cfg,
    files=foreign.fingerprint(path),
  )
