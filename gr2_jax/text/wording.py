"""What the corpus says in plain words: for the vocabulary and for the tasks."""

import collections
from collections.abc import Iterator, Sequence

from gr2_jax.data import dataset as dataset_lib
from gr2_jax.text import prompts

# How often fixed phrases count when the text pieces are trained, so that their
# words become whole pieces.
PHRASE_REPEATS = 30


def corpus(items: Sequence[dataset_lib.Item]) -> Iterator[str]:
  """Yields the texts of a catalogue that a vocabulary is trained on.

  They are in the form in which prompts and examples write them: words with the
  space before them.

  Args:
    items: the catalogue.

  Yields:
    Lines of text.
  """
  for item in items:
    path = prompts.category_path(item.categories)
    yield f' {item.title} | {path}'
    for category in item.categories:
      yield f' {category}.'
      yield f' {category},'
    if item.brand:
      yield f' {item.brand}.'
    if item.description:
      yield f' {item.description}'
  for _ in range(PHRASE_REPEATS):
    yield prompts.INSTRUCTION
    yield ' This user likes mostly and also from of brand. Items in:;'


def persona(items: Sequence[dataset_lib.Item]) -> str:
  """Writes in a sentence what the items' user likes (our choice of wording)."""
  leaves = collections.Counter(c for i in items for c in i.categories[-1:])
  brands = collections.Counter(i.brand for i in items if i.brand)
  likes = [name for name, _ in leaves.most_common(2)]
  text = f' This user likes mostly {" and also ".join(likes) or "much"}'
  if brands and brands.most_common(1)[0][1] > 1:
    text += f' from {brands.most_common(1)[0][0]}'
  return f'{text}.'


def plain_texts(items: Sequence[dataset_lib.Item]) -> list[str]:
  """Returns each item's own text, then a list of titles for each category."""
  titles = collections.defaultdict(list)
  texts = []
  for item in items:
    for category in item.categories:
      titles[category].append(item.title)
    text = f' {item.title}'
    if item.categories:
      text += f' | {prompts.category_path(item.categories)}'
    if item.brand:
      text += f' of brand {item.brand}'
    texts.append(f'{text}. {item.description}'.rstrip())
  for category, names in sorted(titles.items()):
    texts.append(f' Items in {category}: {"; ".join(names)}')
  return texts
