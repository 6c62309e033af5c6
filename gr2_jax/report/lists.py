"""Test lists side by side: history, incoming order, re-ranked order."""

import dataclasses
import html
from collections.abc import Mapping, Sequence

from gr2_jax.text import semantic_ids

# The last items of a history that are shown.
_HISTORY = 10
# What HTML cannot hold, escaped or not; a model may write it.
_CONTROLS = dict.fromkeys({*range(0x20), 0x7F} - set(b'\t\n\r'), '\ufffd')


@dataclasses.dataclass(frozen=True)
class Entry:
  """An item as it is shown.

  Attributes:
    title: of the item.
    detail: small print: its semantic ID and category path.
    target: whether it is the true next item, or a positive of a slate.
  """

  title: str
  detail: str
  target: bool = False


@dataclasses.dataclass(frozen=True)
class Example:
  """One test list.

  Attributes:
    user: id.
    history: oldest first.
    incoming: the pre-rank order.
    order: for each place of the re-ranked list, the place in `incoming`.
    explanation: what the model wrote.
    valid: whether its answer was a permutation; if not, `order` is the
      incoming one.
    titles: of the items that the explanation cites, by citation.
  """

  user: str
  history: Sequence[Entry]
  incoming: Sequence[Entry]
  order: Sequence[int]
  explanation: str
  valid: bool
  titles: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _text(text: str) -> str:
  return html.escape(text.translate(_CONTROLS))


def _item(place: int, entry: Entry, move: int | None = None) -> str:
  note = ''
  if move:
    kind, arrow = ('up', '▲') if move > 0 else ('down', '▼')
    note = f' <span class="move {kind}">{arrow}{abs(move)}</span>'
  target = ' class="target"' if entry.target else ''
  return (
    f'<li{target}><span class="place">{place}</span>'
    f'{_text(entry.title)}{note}'
    f'<small>{_text(entry.detail)}</small></li>'
  )


def _column(title: str, items: Sequence[str]) -> str:
  return f'<div><h4>{title}</h4><ol>{"".join(items)}</ol></div>'


def _article(example: Example) -> str:
  shown = example.history[-_HISTORY:]
  first = len(example.history) - len(shown) + 1
  older = f' (last {len(shown)} of {len(example.history)})'
  history = [_item(first + i, entry) for i, entry in enumerate(shown)]
  incoming = [_item(i + 1, e) for i, e in enumerate(example.incoming)]
  ranked = [
    _item(new + 1, example.incoming[old], old - new)
    for new, old in enumerate(example.order)
  ]
  note = '' if example.valid else ' (answer not valid: incoming order kept)'
  columns = (
    _column('History' + (older if first > 1 else ''), history)
    + _column('Incoming order', incoming)
    + _column('Re-ranked' + note, ranked)
  )
  return (
    f'<article class="example"><h3>User {_text(example.user)}</h3>'
    f'<div class="lists">{columns}</div>'
    f'<blockquote>{_explanation(example)}</blockquote></article>'
  )


def _explanation(example: Example) -> str:
  """Writes titles in place of semantic IDs, which a pointer makes appear."""
  return ''.join(
    f'<span class="cited" title="{_text(part)}">'
    f'{_text(example.titles[part])}</span>'
    if part in example.titles
    else _text(part)
    for part in semantic_ids.split(example.explanation)
  )


def section(examples: Sequence[Example]) -> str:
  """Writes the examples as HTML; all text is escaped."""
  several = any(sum(e.target for e in x.incoming) > 1 for x in examples)
  marked = (
    'The marked items are those that the user engaged with'
    if several
    else 'The marked item is the one that came next'
  )
  return (
    '<h2>Test lists</h2><p>A random sample: the history, the incoming order, '
    "the model's order and its explanation. "
    f'{marked}; arrows count the places it moved.</p>'
    + ''.join(map(_article, examples))
  )
