"""What is said of filtering, cutting and splitting, by hand."""

from gr2_jax.report import kept, page, terminal, verdict

CONFIG = {
  'data': {'core': 5},
  'text': {'prompt': {'title_tokens': 12, 'category_tokens': 6}},
}
DATA = {
  'users': 800,
  'items': 1000,
  'interactions': 9000,
  'below_core_users': 200,
  'below_core_items': 250,
  'below_core_interactions': 1000,
  'duplicates': 3,
  'dropped_slates': 0,
  'untitled': 7,
  'examples': {'train': 4000, 'valid': 800, 'test': 1600},
  'example_users': {'train': 790, 'valid': 800, 'test': 800},
  'retriever_interactions': 2600,
}
CUT = {
  'titles_cut': 201,
  'categories_cut': 200,
  'title_tokens': 17,
  'category_tokens': 9,
}
REPORT = {
  'config': CONFIG,
  'dataset': DATA,
  'midtrain': {'truncation': CUT},
  'sft': {
    'truncation': {
      'prompts': 90, 'prompts_cut': 4, 'history_items_dropped': 11,
    }
  },
  'lists': {'train': 4000, 'valid': 800, 'test': 1600},
  'hit_rate': {'train': 0.2, 'valid': 0.25, 'test': 0.1},
}  # fmt: skip


def test_each_step_is_told():
  assert kept.lines(REPORT) == [
    'Filtered: 800 of 1,000 users, 1,000 of 1,250 items and 9,000 of 10,000 '
    'interactions are kept (data.core = 5).',
    '3 repeated rows were dropped; 7 items have no title.',
    'Split: the retriever learns from 2,600 interactions; re-ranking has 4,000 '
    'positions of 790 users to train, 800 positions of 800 users to validate '
    'and 1,600 positions of 800 users to test.',
    'Cut in prompts: 201 of 1,000 titles (to 12 tokens) and 200 of 1,000 '
    'category paths (to 6).',
    '4 of 90 explained prompts lost 11 history items to '
    'text.prompt.max_tokens.',
    'Lists that hold their target, which are re-ranked: 800 of 4,000 to train, '
    '200 of 800 to validate and 160 of 1,600 to test.',
  ]


def test_a_fifth_is_no_warning_and_more_is():
  # 200 of 1,000 users, 250 of 1,250 items and 200 of 1,000 paths are a fifth.
  assert kept.warnings(REPORT) == [
    '201 of 1,000 titles (20%) are cut to 12 tokens in prompts: '
    '--config.text.prompt.title_tokens=17 leaves most of them whole '
    '(text.prompt.max_tokens may have to grow with it).'
  ]
  data = {**DATA, 'below_core_users': 201, 'below_core_items': 3000}
  users, items, _ = kept.warnings({**REPORT, 'dataset': data})
  assert users.startswith('201 of 1,001 users (20%) are left out: they have')
  assert items.startswith('3,000 of 4,000 items (75%) are left out')
  assert 'A lower --config.data.core keeps more' in items


def test_a_part_of_a_report_is_read():
  for name in ('dataset', 'midtrain', 'sft', 'lists'):
    part = {key: value for key, value in REPORT.items() if key != name}
    assert len(kept.lines(part)) < len(kept.lines(REPORT))
    kept.warnings(part)
  assert kept.lines({}) == kept.warnings({}) == []


def test_page_table_and_verdict_hold_them(report):
  whole = {**report, **REPORT, 'dataset': {**report['dataset'], **DATA}}
  written = page.build(whole, [], [])
  table = ' '.join(terminal.closing_table(whole).split())
  for line in kept.lines(whole):
    assert line in written
    assert line in table
  (warning,) = kept.warnings(whole)
  assert verdict.warnings(whole)[0] == warning
  assert warning in written
  assert warning in table


def test_retrieval_alone_tells_them(report):
  whole = {**report, **REPORT, 'dataset': {**report['dataset'], **DATA}}
  table = ' '.join(terminal.retrieval_table(whole).split())
  for line in (*kept.lines(whole), *kept.warnings(whole)):
    assert line in table
