"""Settings that a config leaves to the data: counted, chosen, written down.

A config may leave settings unset (None), as `configs/own.py` does by `unset`.
Commands call `fill` before anything runs: it reads and filters the data,
`size_rules.sizes` chooses values for what is still None, and the config that is
passed on, and written to `config.json`, is complete: the same data give the
same config, so that finished stages are skipped. What the user sets is never
changed.
"""

import dataclasses
import os
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging
from ml_collections import config_dict

from gr2_jax import config as config_lib
from gr2_jax.data import counting, padding, sources
from gr2_jax.run import costs, size_rules
from gr2_jax.text import lengths, prompts

# Budgets of tokens, which follow from other settings; see `_budget`.
_FOLLOW = ('text.prompt.max_tokens', 'sft.train.length')
_NAME = 'data.name'


def unset(config: ml_collections.ConfigDict) -> None:
  """Leaves to the data all settings that are chosen here.

  Args:
    config: of a run, changed here: these settings are None, and take values of
      the type that they had.
  """
  names = size_rules.sizes(counting.Counts(1000, np.full(1000, 10)))
  for name in (_NAME, *names, *_FOLLOW):
    *path, key = name.split('.')
    holder = config
    for part in path:
      holder = holder[part]
    kind = type(holder[key])
    del holder[key]
    holder[key] = config_dict.placeholder(kind)


def fill(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Chooses the settings that are None, by the data, and logs its choices.

  Args:
    config: of a run.

  Returns:
    A whole config: the same one where nothing is None.

  Raises:
    FileNotFoundError: a missing file or folder.
    ValueError: bad input, with file, line and remedy; data that are too few,
      or a setting that is None and has no rule.
  """
  names = _missing(config)
  if not names:
    return config
  counts = _read(config)
  config = choose(config, counts)
  _tell(config, counts, names)
  return config


def examples(
  config: ml_collections.ConfigDict,
) -> Iterator[ml_collections.ConfigDict]:
  """Gives the configs that data of three sizes would make of this one.

  Args:
    config: of a run.

  Yields:
    Whole configs.
  """
  for users, items, each in (
    (1000, 1500, 100),
    (200, 300, 12),
    (10**5, 10**4, 9),
  ):
    yield choose(config, counting.Counts(items, np.full(users, each)))


def choose(
  config: ml_collections.ConfigDict, counts: counting.Counts
) -> ml_collections.ConfigDict:
  """Chooses the settings that are None; see `fill`.

  Args:
    config: of a run.
    counts: of its data.

  Returns:
    A whole config.

  Raises:
    ValueError: a setting is None and has no rule.
  """
  config = config.copy_and_resolve_references()
  names = _missing(config)
  found = {
    _NAME: _named(config.data.dir, config.data.kind),
    **size_rules.sizes(counts),
  }
  _set(config, {name: found[name] for name in names if name in found})
  # In this order: rows hold what prompts take.
  for name in _FOLLOW:
    if name in names:
      _set(config, {name: _budget(name, config)})
  left = _missing(config)
  if left:
    raise ValueError(f'{left} are None, and no rule chooses them: set them.')
  return config


def _missing(config: ml_collections.ConfigDict) -> list[str]:
  flat = config_lib.flatten(config)
  return [name for name, value in flat.items() if value is None]


def _named(folder: str, kind: str) -> str:
  """Makes a data set's name of its folder, of an asset of its kind."""
  # One name for all spellings of a folder, as `DIR/..` is one.
  path = os.path.abspath(os.path.expanduser(folder))
  name = os.path.basename(path) if folder else kind
  return re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-._') or 'own'


def _read(config: ml_collections.ConfigDict) -> counting.Counts:
  given = config_lib.to_dict(config.data)
  # Reading needs neither name nor split, which may be what is to be chosen.
  given |= {
    'name': given['name'] or _named(given['dir'], given['kind']),
    'split': {},
  }
  source = config_lib.build(sources.SourceConfig, given, 'data')
  if source.beam:
    raise ValueError(
      f'data.beam = {source.beam!r}, but sizes are chosen from data that this '
      'process counts: leave it empty, or start from configs/beauty.py.'
    )
  return counting.count(sources.read(source))


def _budget(name: str, config: ml_collections.ConfigDict) -> int:
  """Returns a budget that holds the longest texts there can be."""
  if name == 'sft.train.length':
    return padding.round_up(lengths.budgets(config).row, 64)
  cfg = dataclasses.replace(
    prompts.PromptConfig(),
    **{k: v for k, v in config.text.prompt.items() if v is not None},
  )
  # A bar between title and path, and about 24 tokens around the items.
  item = config.sid.levels + 2 + cfg.title_tokens + 1 + cfg.category_tokens
  listed = cfg.citable_items * item + cfg.max_candidates * config.sid.levels
  return padding.round_up(listed + 24, 32)


def _set(config: ml_collections.ConfigDict, values: dict[str, Any]) -> None:
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict(values)


def _tell(
  config: ml_collections.ConfigDict, counts: counting.Counts, names: list[str]
) -> None:
  """Shows what was chosen, and what the run will take."""
  flat = config_lib.flatten(config)
  chosen = ' '.join(f'--config.{name}={flat[name]}' for name in names)
  logging.info(
    'Sizes for %s users, %s items and %s interactions, %s of the median user:'
    '\n%s',
    *(f'{n:,}' for n in (counts.users, counts.items, counts.interactions)),
    counts.median,
    textwrap.fill(chosen, 100, break_on_hyphens=False, break_long_words=False),
  )
  for line in costs.lines(config, counts):
    logging.info('%s', line)
