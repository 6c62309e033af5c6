"""SFT's text rows: prompts with the answers that traces hold."""

from collections.abc import Mapping, Sequence

import numpy as np

from gr2_jax.run import artifacts
from gr2_jax.text import answer, encoding


def example(
  store: artifacts.Artifacts,
  trace: Mapping,
  lambda_r: float,
  lambda_o: float,
) -> dict[str, np.ndarray]:
  """Makes the text row of one trace: prompt and answer.

  Args:
    store: the run's artifacts.
    trace: a line of `traces.jsonl`.
    lambda_r: weight of a reasoning token.
    lambda_o: weight of a ranking token.

  Returns:
    {'tokens': int32 [t], 'weights': float32 [t]}; prompt tokens weigh 0.
  """
  prompt = store.prompter.rerank(
    store.history(trace['user'], trace['position']), trace['candidates']
  )
  tokens, kind = encoding.encode_answer(
    store.vocab, trace['explanation'], store.sids[trace['ranking']]
  )
  by_kind = {answer.REASONING: lambda_r, answer.RANKING: lambda_o}
  weights = [0.0] * len(prompt) + [by_kind[k] for k in kind]
  return {
    'tokens': np.array([*prompt, *tokens], np.int32),
    'weights': np.array(weights, np.float32),
  }


def truncation(
  store: artifacts.Artifacts, traces: Sequence[Mapping]
) -> dict[str, int]:
  """Counts what the prompts of traces leave out, each of them once.

  Not while rows are made: how often that happens depends on the input pipeline.

  Args:
    store: the run's artifacts.
    traces: lines of `traces.jsonl`.

  Returns:
    `Prompter.counts`; the number of prompts, of those that lost history for
    `max_tokens`, and of the items that these lost.
  """
  dropped = [
    store.prompter.dropped(
      store.history(trace['user'], trace['position']), trace['candidates']
    )
    for trace in traces
  ]
  return {
    **store.prompter.counts,
    'prompts': len(dropped),
    'prompts_cut': sum(count > 0 for count in dropped),
    'history_items_dropped': sum(dropped),
  }
