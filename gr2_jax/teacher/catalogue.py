"""Items as a language model sees them: one line each, which nothing forges.

<|sid_begin|><s_a_3><s_b_0><|sid_end|> Toy Story (1995) | Animation/Comedy
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.text import prompts, semantic_ids

# All semantic IDs and all markers of chat formats have angle or square
# brackets; the bar stands between the fields of an item.
_NEUTRAL = str.maketrans({'<': '(', '[': '(', '>': ')', ']': ')', '|': '/'})
_SPACES = ('Cc', 'Zl', 'Zp', 'Zs')


class Catalogue:
  """Names of I items.

  Attributes:
    index: bare semantic ID, as text -> item.
  """

  def __init__(
    self,
    items: Sequence[dataset_lib.Item],
    sids: np.ndarray,
    title_characters: int,
    category_characters: int,
  ):
    """Names the items.

    Args:
      items: I items.
      sids: their semantic IDs, int [I, L].
      title_characters: a longer title is cut.
      category_characters: a longer category path loses its root first.

    Raises:
      ValueError: other numbers of items and semantic IDs, or a semantic ID that
        two items share.
    """
    if len(items) != len(sids):
      raise ValueError(
        f'{len(items)} items, but {len(sids)} semantic IDs: both must come '
        'from the same data stage.'
      )
    self._items = items
    self._limits = title_characters, category_characters
    self._bare = [semantic_ids.write(row) for row in np.asarray(sids).tolist()]
    self.index = {text: item for item, text in enumerate(self._bare)}
    if len(self.index) < len(items):
      raise ValueError(
        f'{len(items)} items share {len(self.index)} semantic IDs: a teacher '
        'cannot tell them apart. Run the sid stage again.'
      )

  def sid(self, item: int) -> str:
    """Returns the wrapped semantic ID of an item."""
    return semantic_ids.wrap(self._bare[item])

  def line(self, item: int) -> str:
    """Writes an item: semantic ID, title, category path."""
    found = self._items[item]
    title, most = clean(found.title), self._limits[0]
    if len(title) > most:
      title = f'{title[:most].rstrip()}...'
    line = f'{self.sid(item)} {title}'.rstrip()
    path = self._path(found.categories)
    return f'{line} | {path}' if path else line

  def _path(self, categories: Sequence[str]) -> str:
    names, most = [clean(name) for name in categories], self._limits[1]
    while len(names) > 1 and len(prompts.category_path(names)) > most:
      names = names[1:]
    return prompts.category_path(names)[:most]


def clean(text: str) -> str:
  """Makes one line of an untrusted text.

  Control characters and all kinds of space become single spaces, characters
  without a form of their own (marks of direction, of zero width) vanish, and
  brackets become round ones, full-width ones too (by NFKC): so a title can
  spell neither a line of its own, nor a semantic ID, nor a marker of any
  model's chat format, such as <|im_end|>, </s> or [INST].

  Args:
    text: a title or a category.

  Returns:
    The line.
  """
  kept = []
  for character in unicodedata.normalize('NFKC', text):
    kind = unicodedata.category(character)
    if kind in _SPACES:
      kept.append(' ')
    elif kind != 'Cf':
      # A lone surrogate cannot be written.
      kept.append('\ufffd' if kind == 'Cs' else character)
  return ' '.join(''.join(kept).translate(_NEUTRAL).split())
