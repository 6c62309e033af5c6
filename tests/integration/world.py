"""A small made-up catalogue in the generic format, for tests of whole stages.

Items of a genre share words and embeddings, users stay inside two genres, so
that there is something to learn.
"""

import csv
import json
import pathlib

import numpy as np

GENRES = ('Serum', 'Lipstick', 'Shampoo', 'Perfume')
WORDS = ('Rose', 'Gold', 'Pure', 'Silk', 'Night', 'Ocean', 'Berry', 'Mint')


def write(
  directory: pathlib.Path,
  items: int = 48,
  users: int = 40,
  length: int = 14,
  seed: int = 0,
) -> None:
  """Writes `items.jsonl`, `interactions.csv` and `embeddings.npy`.

  Args:
    directory: where to; made if missing.
    items: number of items.
    users: number of users.
    length: interactions of each user, without repetition.
    seed: of all that is drawn.
  """
  rng = np.random.default_rng(seed)
  directory.mkdir(parents=True, exist_ok=True)
  genre = np.arange(items) % len(GENRES)
  with (directory / 'items.jsonl').open('w') as stream:
    for i in range(items):
      first, second = rng.choice(len(WORDS), 2, replace=False)
      record = {
        'item_id': f'i{i:03d}',
        'title': f'{WORDS[first]} {WORDS[second]} {GENRES[genre[i]]} {i}',
        'categories': ['Beauty', GENRES[genre[i]]],
        'brand': WORDS[i % 3],
      }
      stream.write(json.dumps(record) + '\n')
  with (directory / 'interactions.csv').open('w', newline='') as stream:
    writer = csv.writer(stream)
    writer.writerow(['user_id', 'item_id', 'timestamp'])
    for user in range(users):
      liked = rng.choice(len(GENRES), 2, replace=False)
      weight = np.where(np.isin(genre, liked), 1.0, 0.05)
      chosen = rng.choice(items, length, False, weight / weight.sum())
      for time, item in enumerate(chosen):
        writer.writerow([f'u{user:03d}', f'i{item:03d}', time])
  centres = rng.normal(size=(len(GENRES), 384))
  vectors = centres[genre] + 0.5 * rng.normal(size=(items, 384))
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  np.save(directory / 'embeddings.npy', vectors.astype(np.float32))
