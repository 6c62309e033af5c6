"""Blocks of pages that are made out of the files of results/."""

import json
import pathlib
import textwrap

import pytest

from gr2_jax.report import tables, values

ROOT = pathlib.Path(__file__).resolve().parents[2]
_SEEDS = {
  'runs': [
    {'name': 'run', 'seed': 0, 'results': {'hits': 0.1, 'codes': [3, 5]}},
    {'name': 'run', 'seed': 1, 'results': {'hits': 0.3, 'codes': [5, 8]}},
  ],
  'pooled': {
    'run': {
      'lists': [7, 1200, 9],
      'systems': {
        'rl': {'recall@1': [0.25, 0.0123], 'ndcg@5': [0.5, 0.01]},
        'sft': {'recall@1': [0.125, 0.0], 'ndcg@5': [0.4375, 0.02]},
      },
      'deltas': {'rl-sft': {'ndcg@5': [0.0625, -0.0004, 0.13]}},
    }
  },
}
_BENCH = {
  'results': [
    {'name': 'step', 'peer': 'A', 'ours': 1234.5, 'ratio_range': [1.0, 2.25]},
    {'name': 'parse', 'peer': 'A', 'ours': 0.0958, 'ratio_range': [3, 4]},
    {'name': 'parse', 'peer': 'B', 'ours': 7.0, 'ratio_range': [5, 6]},
  ]
}
_SPEC = """
[pooled]
at = 'seeds.json/pooled/run'
head = 'system | what | R@1 | N@5'
cells = '{recall@1:pair .3f} | {ndcg@5:pair .2f}'
rows = [
  ['systems/sft', '`sft` | before'],
  ['systems/rl', '`rl` |'],
  ['deltas/rl-sft', 'rl - sft |', '| {ndcg@5:interval +.3f}'],
]
text = '''
Of {lists:and ,d} lists, with hits of {/seeds.json/runs/run/hits:spread .2f},
the step is the faster one by far:
{/bench.json/results/step/ratio_range:range .1f}.
'''
"""
_MADE = """\
| system | what | R@1 | N@5 |
|---|---|---|---|
| `sft` | before | 0.125 ±0.000 | 0.44 ±0.02 |
| `rl` | | 0.250 ±0.012 | 0.50 ±0.01 |
| rl - sft | | | +0.062 [-0.000, +0.130] |

Of 7, 1,200 and 9 lists, with hits of 0.20 ±0.14, the step is the faster one by
far: [1.0, 2.2]."""
_OPEN = '<!-- table: {} (python -m launch.tables) -->'
_PAGE = f'# Title\n\n{_OPEN.format("pooled")}\n{{}}<!-- end -->\n\nMore.\n'


@pytest.fixture
def root(tmp_path):
  """A repository with two files, one block and one page."""
  results = tmp_path / 'results'
  results.mkdir()
  (results / 'seeds.json').write_text(json.dumps(_SEEDS))
  (results / 'bench.json').write_text(json.dumps(_BENCH))
  (results / 'tables.toml').write_text(_SPEC)
  (tmp_path / 'README.md').write_text(_PAGE.format(''))
  return tmp_path


def _update(root):
  """Makes all pages of a repository; returns what `describe` says of it."""
  found = tables.update_all(root)
  for path, (page, _) in found.items():
    path.write_text(page)
  return tables.describe(root, found)


def test_the_pages_are_as_the_files_have_them():
  found = tables.describe(ROOT, tables.update_all(ROOT))
  assert not found, f'{found}\nStale: run {tables.COMMAND}'


def test_a_block_is_made_and_then_stays(root):
  page = root / 'README.md'
  assert 'README.md:4, block pooled\n  - <!--' not in _update(root)
  assert page.read_text() == _PAGE.format(_MADE + '\n')
  assert _update(root) == '' and tables.update_all(root) == {}


def test_what_is_stale_is_told_by_its_first_row(root):
  _update(root)
  page = root / 'README.md'
  page.write_text(page.read_text().replace('0.250', '0.251'))
  row = '| `rl` | | 0.25{} ±0.012 | 0.50 ±0.01 |'
  told = f'README.md:7, block pooled\n  - {row}\n  + {row}'
  assert _update(root) == told.replace('{}', '1', 1).replace('{}', '0', 1)
  # And where the file changed, with rows that went.
  path = root / 'results/seeds.json'
  path.write_text(path.read_text().replace('1200', '1300'))
  assert '- Of 7, 1,200 and 9 lists' in _update(root)
  page.write_text(page.read_text().replace('far: [1.0, 2.2].\n', ''))
  assert _update(root).endswith('11, block pooled\n  - \n  + far: [1.0, 2.2].')


def test_pages_of_folders_are_found(root):
  (root / 'gr2_jax/sid').mkdir(parents=True)
  page = root / 'gr2_jax/sid/README.md'
  page.write_text((root / 'README.md').read_text())
  assert 'gr2_jax/sid/README.md:4, block pooled' in _update(root)
  assert _MADE in page.read_text() and _MADE in (root / 'README.md').read_text()


@pytest.mark.parametrize(
  'value, how, shown',
  [
    (1234.5, ',.0f', '1,234'),
    (0.0958, '', '0.0958'),
    (0.3464, 'percent .0f', '35'),
    (0.00673, 'ms .1f', '6.7'),
    (3 * 2**29, 'GiB .1f', '1.5'),
    ([228.6, 240.2], '.0f', '229 240'),
    ([0.25, 0.0123], 'pair .3f', '0.250 ±0.012'),
    ([0.5, -0.25, 1.0], 'interval +.2f', '+0.50 [-0.25, +1.00]'),
    ([1.5, 2.5], 'range .1f', '[1.5, 2.5]'),
    ([0.04, 0.13], 'each .2f', '0.04 / 0.13'),
    ([5], 'and d', '5'),
    ([1, 2, 4], 'mean .2f', '2.33'),
    ([1, 2, 6], 'deviation .3f', '2.646'),
    ([[1, 2], [10, 30]], 'mean .1f', '1.5 20.0'),
    ([1, 2, 3], 'spread .1f', '2.0 ±1.0'),
  ],
)
def test_how_numbers_are_shown(value, how, shown):
  assert values.show(value, how) == shown


@pytest.mark.parametrize(
  'value, how, error',
  [
    (1.0, 'interval .2f', "1.0 cannot be shown as 'interval .2f'"),
    ([1.0, 2.0], 'interval .2f', r'\[1.0, 2.0\] cannot be shown'),
    ([1.0], 'spread .2f', r'\[1.0\] cannot be shown'),
    ([], 'mean .2f', 'cannot be shown'),
    ({'a': 1}, 'mean .2f', "{'a': 1} cannot be shown"),
    (float('nan'), '.3f', 'nan cannot be shown'),
    (None, '.3f', 'None cannot be shown'),
    (True, '.3f', 'True cannot be shown'),
    ('fast', '.3f', "'fast' cannot be shown"),
    (1.5, 'd', "1.5 cannot be shown as 'd'"),
    (1.5, 'mea .1f', "'mea .1f' has no known word .* GiB, .* spread"),
  ],
)
def test_what_cannot_be_shown(value, how, error):
  with pytest.raises(ValueError, match=error):
    values.show(value, how)


@pytest.mark.parametrize(
  'old, new, error',
  [
    (
      'seeds.json/pooled',
      'seed.json/pooled',
      "no file 'seed.json' in .*result",
    ),
    ('pooled/run', 'pooled/base', "seeds.json has no 'pooled/base'; .* run"),
    (
      'systems/sft',
      'systems/dpo',
      "'pooled/run/systems/dpo'; there is rl, sft",
    ),
    ('{ndcg@5:pair', '{ndcg@3:pair', "sft/ndcg@3'; .* ndcg@5, recall@1"),
    ('lists:and ,d', 'lists/3:and ,d', "no 'pooled/run/lists/3'; .* 0, 1, 2"),
    ('lists:and ,d', 'lists/0/a:d', "no 'pooled/run/lists/0/a'; there is 7"),
    ('lists:and ,d', 'lists:pair d', r'seeds.*/lists: \[7, 1200, 9\] cannot'),
    ('{lists:and ,d}', '{lists}', '{lists} is no {PATH:HOW}'),
    (
      'results/step',
      'results/parse',
      'has no .*parse beside A, parse beside B',
    ),
    ("'`sft` | before'", "'`sft`'", 'head has 4 cells'),
  ],
)
def test_an_error_names_page_block_file_and_key(root, old, new, error):
  path = root / 'results/tables.toml'
  assert old in path.read_text()
  path.write_text(path.read_text().replace(old, new))
  with pytest.raises(ValueError, match=f'^README.md, block pooled: .*{error}'):
    tables.update_all(root)


def test_results_of_a_sweep_are_collected_over_its_seeds(root):
  found = values.Values(root / 'results')
  template = '{hits:each .1f}; {codes:mean .1f}; {codes/1:spread .1f}'
  shown = '0.1 / 0.3; 4.0 6.5; 6.5 ±2.1'
  assert values.fill(template, 'seeds.json/runs/run', found) == shown


def test_rows_of_a_benchmark_with_one_name_go_by_their_peers(root):
  found = values.Values(root / 'results')
  template = '{step/ours:,.1f}, {parse beside B/ours:.0f}'
  assert values.fill(template, 'bench.json/results', found) == '1,234.5, 7'


@pytest.mark.parametrize(
  'page, error',
  [
    ([_OPEN.format('other'), '<!-- end -->'], 'block other: results/tables.t'),
    ([_OPEN.format('pooled')], 'block pooled: there is no `<!-- end -->`'),
    (['<!-- end -->'], 'line 1, .* marks are'),
    ([_OPEN.format('pooled')] * 2, 'line 2, .* marks are'),
    (['', ' <!--table: pooled-->', '<!-- end -->'], 'line 2, .* marks are'),
    (['nothing'], '^results/tables.toml: no page has the block pooled'),
  ],
)
def test_marks_that_are_wrong(root, page, error):
  (root / 'README.md').write_text('\n'.join(page))
  with pytest.raises(ValueError, match=error):
    tables.update_all(root)


@pytest.mark.parametrize(
  'spec, error',
  [
    ('[a', r'tables.toml: .*\(at '),
    ("[a]\nfile = 'x'", r'tables.toml, block a: its keys are of .*cells'),
    ("[a]\nrows = [['x']]", r"tables.toml, block a: a row is path, .*\['x'\]"),
    ('[a]\nrows = [[1, 2]]', r'block a: a row is path, .*\[1, 2\]'),
  ],
)
def test_blocks_that_are_wrong(root, spec, error):
  path = root / 'results/tables.toml'
  path.write_text(textwrap.dedent(spec))
  with pytest.raises(ValueError, match=error):
    tables.update_all(root)
