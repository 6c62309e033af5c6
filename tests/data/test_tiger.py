import gzip
import json

import pytest

from gr2_jax.data import raw, tiger

MAPS = {'user2id': {'U1': '1'}, 'item2id': {'B7': '1', 'B3': '2', 'B5': '3'}}
META = [
  "{'asin': 'B3', 'title': 'Mint', 'categories': [['Beauty']]}",
  "{'asin': 'B9', 'title': 'nobody had it', 'categories': [['Beauty']]",
  "{'asin': 'B5', 'title': 'Nail', 'price': 2.5}",
  "{'asin': 'B7', 'title': 'Rose &amp; soap'}",
]


def _write(folder, lines=('1 1 2 2', 'U2 3 1'), maps=MAPS, meta=META):
  (folder / 'sequential_data.txt').write_text('\n'.join(lines) + '\n')
  (folder / 'datamaps.json').write_text(json.dumps(maps))
  text = '\n'.join(meta).encode()
  (folder / 'meta.json.gz').write_bytes(gzip.compress(text))


@pytest.mark.parametrize(
  'maps', [MAPS, {'id2item': {'1': 'B7', '2': 'B3', '3': 'B5'}}]
)
def test_sequences_of_p5(tmp_path, maps):
  _write(tmp_path, maps=maps)
  read = tiger.read(tmp_path)
  assert read.interactions == [
    raw.Interaction('1', 'B7', 0),
    raw.Interaction('1', 'B3', 1),
    raw.Interaction('1', 'B3', 2),
    raw.Interaction('U2', 'B5', 0),
    raw.Interaction('U2', 'B7', 1),
  ]
  titles = {item.item_id: item.title for item in read.items}
  assert titles == {'B3': 'Mint', 'B5': 'Nail', 'B7': 'Rose & soap'}


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'lines': ['1 1', '1 2']}, "data.txt:2: user '1' stands there already"),
    ({'lines': ['1 1', '2']}, "data.txt:2: user '2' .* has no items"),
    ({'lines': ['1 1 8']}, "data.txt:1: the item '8' is not in datamaps.json"),
    (
      {'maps': {'user2id': {}}},
      'datamaps.json:1: no object item2id or id2item',
    ),
    (
      {'maps': {'item2id': {'B7': '1', 'B3': '1'}}},
      'json:1: .* two items one id',
    ),
    (
      {'meta': META[2:]},
      "data.txt:1: the item 'B3' has no record in meta.json",
    ),
  ],
)
def test_bad_input(tmp_path, files, message):
  _write(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    tiger.read(tmp_path)


def test_sequences_of_lc_rec(tmp_path):
  items = {str(i): {'title': f'T{i}'} for i in range(3)}
  (tmp_path / 'X.item.json').write_text(json.dumps(items))
  (tmp_path / 'X.inter.json').write_text('{"0": [2, 0],\n"1": ["1"]}')
  assert tiger.read(tmp_path).interactions == [
    raw.Interaction('0', '2', 0),
    raw.Interaction('0', '0', 1),
    raw.Interaction('1', '1', 0),
  ]
  (tmp_path / 'X.inter.json').write_text('{"0": [2],\n"1": [7]}')
  with pytest.raises(
    ValueError, match="inter.json:2: the item '7' has no record"
  ):
    tiger.read(tmp_path)
  (tmp_path / 'X.inter.json').write_text('{"0": [2],\n"1": [1.5]}')
  with pytest.raises(
    ValueError, match="inter.json:2: the items of user '1' is 1"
  ):
    tiger.read(tmp_path)
