"""Answers as text and tokens of a vocabulary; the format: `text/answer.py`."""

import numpy as np

from gr2_jax.text import answer, semantic_ids
from gr2_jax.text import vocab as vocab_lib


def close_explanation(words: str, sid: np.ndarray) -> str:
  """Returns the text of an explanation as answers hold it.

  Args:
    words: its words.
    sid: semantic ID of the item that is ranked first: int [L].
  """
  first = semantic_ids.wrap(semantic_ids.write(sid))
  return answer.clean_explanation(words) + answer.TOP + first


def encode_answer(
  vocab: vocab_lib.Vocab, explanation: str, sids: np.ndarray
) -> tuple[list[int], list[int]]:
  """Writes an answer as tokens.

  Args:
    vocab: the vocabulary.
    explanation: the words, any text, passed through `answer.clean_explanation`;
      only semantic IDs and their wrappers are recognised as added tokens in
      it. `top` and the first item are written behind it.
    sids: the ranked list, best first: int [K, L].

  Returns:
    (tokens, kind): kind is 0 for reasoning (the opening delimiter and the
    words) and 1 for the ranking (from `top` to the end token, both included).

  Raises:
    ValueError: an empty list, or codes that the vocabulary does not have.
  """
  rows = vocab.sid_tokens(sids).tolist()
  if not rows:
    raise ValueError('An answer needs at least one recommendation.')
  fmt = vocab.answer_format()
  reasoning = [fmt.open]
  reasoning += vocab.encode(answer.clean_explanation(explanation), added='sids')
  ranking = [fmt.top, fmt.sid_begin, *rows[0], fmt.sid_end, fmt.mid, *rows[0]]
  for row in rows[1:]:
    ranking += [fmt.sep, *row]
  ranking += [fmt.close, fmt.eos]
  kind = [answer.REASONING] * len(reasoning) + [answer.RANKING] * len(ranking)
  return reasoning + ranking, kind
