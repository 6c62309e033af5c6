"""The data that a run uses: what was filtered, cut and held out.

The stages say it when they know it, and the report once more. A report is read
in part: what it lacks is not told.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# A larger share of what is dropped or cut is a warning; our choice.
_SHARE = 0.2
_SPLITS = ('train', 'valid', 'test')


def lines(report: Mapping[str, Any]) -> list[str]:
  """Describes what happened to the data, a sentence a step.

  Args:
    report: the content of `report.json` or `retrieval.json`, or a part of it:
      `config` and summaries of stages, 'dataset' that of the data.
  """
  return [*_filtered(report), *_held_out(report), *_cut(report), *_hits(report)]


def warnings(report: Mapping[str, Any]) -> list[str]:
  """Warns where more than a fifth was dropped or cut, with the flag against it.

  Args:
    report: as for `lines`.
  """
  data = report.get('dataset', {})
  found = []
  for kind in ('users', 'items'):
    dropped = data.get(f'below_core_{kind}', 0)
    total = dropped + data.get(kind, 0)
    if dropped > _SHARE * total:
      core = report['config']['data']['core']
      found.append(
        f'{dropped:,} of {total:,} {kind} ({dropped / total:.0%}) are left '
        f'out: they have fewer than {core} interactions with users and items '
        f'that are kept (data.core = {core}). A lower --config.data.core keeps '
        'more, 0 all.'
      )
  cut, items = _truncation(report), data.get('items', 0)
  for kind, name in (('titles', 'title'), ('categories', 'category')):
    count = cut.get(f'{kind}_cut', 0)
    if items and count > _SHARE * items:
      limit = report['config']['text']['prompt'][f'{name}_tokens']
      setting = f'text.prompt.{name}_tokens'
      found.append(
        f'{count:,} of {items:,} {kind} ({count / items:.0%}) are cut '
        f'to {limit} tokens in prompts: --config.{setting}='
        f'{cut.get(f"{name}_tokens", 2 * limit)} leaves most of them '
        'whole (text.prompt.max_tokens may have to grow with it).'
      )
  return found


def _truncation(report: Mapping[str, Any]) -> Mapping[str, int]:
  return report.get('midtrain', {}).get('truncation', {})


def _filtered(report: Mapping[str, Any]) -> list[str]:
  data = report.get('dataset', {})
  if 'below_core_users' not in data:
    return []
  core = report['config']['data']['core']
  users, items, interactions = (
    f'{data[kind]:,} of {data[kind] + data[f"below_core_{kind}"]:,} {kind}'
    for kind in ('users', 'items', 'interactions')
  )
  found = [
    f'Filtered: {users}, {items} and {interactions} are kept (data.core = '
    f'{core}).'
  ]
  others = {
    'duplicates': 'repeated rows were dropped',
    'dropped_slates': 'slates were dropped',
    'untitled': 'items have no title',
  }
  told = [f'{data[k]:,} {text}' for k, text in others.items() if data.get(k)]
  return [*found, f'{"; ".join(told)}.'] if told else found


def _held_out(report: Mapping[str, Any]) -> list[str]:
  data = report.get('dataset', {})
  if 'examples' not in data or 'example_users' not in data:
    return []
  parts = _listed(
    f'{data["examples"][name]:,} positions of {data["example_users"][name]:,} '
    f'users to {verb}'
    for name, verb in zip(_SPLITS, ('train', 'validate', 'test'), strict=True)
  )
  return [
    f'Split: the retriever learns from {data["retriever_interactions"]:,} '
    f'interactions; re-ranking has {parts}.'
  ]


def _cut(report: Mapping[str, Any]) -> list[str]:
  cut, found = _truncation(report), []
  if cut:
    prompt = report['config']['text']['prompt']
    items = report.get('dataset', {}).get('items')
    of = f' of {items:,}' if items else ''
    found.append(
      f'Cut in prompts: {cut["titles_cut"]:,}{of} titles (to '
      f'{prompt["title_tokens"]} tokens) and {cut["categories_cut"]:,}{of} '
      f'category paths (to {prompt["category_tokens"]}).'
    )
  traces = report.get('sft', {}).get('truncation', {})
  if traces.get('prompts_cut'):
    found.append(
      f'{traces["prompts_cut"]:,} of {traces["prompts"]:,} explained prompts '
      f'lost {traces["history_items_dropped"]:,} history items to '
      'text.prompt.max_tokens.'
    )
  return found


def _hits(report: Mapping[str, Any]) -> list[str]:
  sizes, rates = report.get('lists'), report.get('hit_rate', {})
  if not sizes:
    return []
  parts = _listed(
    f'{rates.get(name, 0) * sizes[name]:,.0f} of {sizes[name]:,} to {verb}'
    for name, verb in zip(_SPLITS, ('train', 'validate', 'test'), strict=True)
    if name in sizes
  )
  return [f'Lists that hold their target, which are re-ranked: {parts}.']


def _listed(parts: Sequence[str]) -> str:
  *first, last = parts
  return f'{", ".join(first)} and {last}' if first else last
