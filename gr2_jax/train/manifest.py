"""What stands beside the arrays of a checkpoint, and whether it fits a run."""

import base64
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging

from gr2_jax import config as config_lib
from gr2_jax import version
from gr2_jax.train import checksum
from gr2_jax.train.retention import Policy


class Damaged(Exception):
  """A checkpoint does not hold what was written."""


def _encode(state: Any) -> Any:
  """Makes an iterator state (JSON-able or bytes) JSON-able."""
  if isinstance(state, bytes):
    return {'bytes': base64.b64encode(state).decode()}
  return {'json': state}


def _decode(state: Any) -> Any:
  if 'bytes' in state:
    return base64.b64decode(state['bytes'])
  return state['json']


def _layout(state: Any) -> dict[str, list]:
  """Returns shape and type of each array by its path."""
  return {
    jax.tree_util.keystr(path): [list(x.shape), str(x.dtype)]
    for path, x in jax.tree_util.tree_leaves_with_path(state)
  }


def make(
  state: Any,
  iterator_state: Any,
  meta: Any,
  score: float | None,
  policy: Policy,
) -> dict[str, str]:
  """Describes what is about to be saved.

  Args:
    state: the tree of arrays; their checksums are taken.
    iterator_state: JSON-able or bytes.
    meta: JSON-able.
    score: of the policy's best metric, if any.
    policy: gives the config.

  Returns:
    {'text': the manifest as JSON, 'sha256': its hash}.
  """
  sums = checksum.of_tree(state)
  body = {
    'iterator': _encode(iterator_state),
    'meta': meta,
    'score': score,
    'config': config_lib.to_dict(policy.config),
    'code': version.describe(),
    'state': {k: [*entry, sums[k]] for k, entry in _layout(state).items()},
  }
  text = json.dumps(body)
  return {'text': text, 'sha256': hashlib.sha256(text.encode()).hexdigest()}


def parse(saved: Mapping[str, str]) -> dict[str, Any]:
  """Undoes `make`.

  Args:
    saved: what it returned.

  Returns:
    The manifest, its iterator state decoded.

  Raises:
    Damaged: the text is not the one that was written.
  """
  text = saved['text']
  if hashlib.sha256(text.encode()).hexdigest() != saved['sha256']:
    raise Damaged('the manifest does not have its hash')
  body = json.loads(text)
  return body | {'iterator': _decode(body['iterator'])}


def _listed(changes: Sequence[tuple[str, Any, Any]], most: int = 8) -> str:
  text = ', '.join(f'{k}: {a!r} -> {b!r}' for k, a, b in changes[:most])
  more = len(changes) - most
  return f'{text} and {more} more' if more > 0 else text


def check(
  path: pathlib.Path, body: Mapping[str, Any], like: Any, policy: Policy
) -> None:
  """Compares what a checkpoint was made with to what is asked for.

  Args:
    path: of the checkpoint.
    body: its manifest.
    like: a tree of arrays as the state is to be.
    policy: gives the config, and whether another one is forced.

  Raises:
    ValueError: other arrays, or another config that is not forced; with each
      difference.
  """
  saved = {name: entry[:2] for name, entry in body['state'].items()}
  changed = config_lib.diff(saved, _layout(like))
  if changed:
    raise ValueError(
      f'Checkpoint {path} holds other arrays than this run (saved -> now): '
      f'{_listed(changed)}. Use the config it was made with, or another '
      'directory.'
    )
  if policy.config is not None and body['config'] is not None:
    changed = config_lib.diff(body['config'], policy.config)
  if changed and not policy.force:
    raise ValueError(
      f'Checkpoint {path} was made with another config (saved -> now): '
      f'{_listed(changed)}. Use that config; or continue with the new '
      f'one (--force); or remove {path.parent.parent} to start over.'
    )
  if changed:
    logging.warning(
      'Continuing from %s although its config differs (saved -> now): %s.',
      path,
      _listed(changed),
    )


def check_code(path: pathlib.Path, body: Mapping[str, Any]) -> None:
  """Warns of a checkpoint that other code made, which is used.

  Args:
    path: of the checkpoint.
    body: its manifest.
  """
  if body['code'] != version.describe():
    logging.warning(
      'Checkpoint %s was made by %s; this is %s. It is used: the result '
      'may differ from a run by one of them alone.',
      path,
      body['code'],
      version.describe(),
    )


def compare(body: Mapping[str, Any], state: Any) -> None:
  """Compares the arrays that were read with the checksums of those saved.

  Args:
    body: the manifest.
    state: the tree of arrays.

  Raises:
    Damaged: some differ.
  """
  sums = checksum.of_tree(state)
  wrong = [k for k, (*_, total) in body['state'].items() if sums[k] != total]
  if wrong:
    raise Damaged(
      f'{len(wrong)} of {len(sums)} arrays differ from what was saved, among '
      f'them {wrong[0]}'
    )
