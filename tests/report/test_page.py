"""The page: complete, escaped, self-contained; and in a real browser."""

import copy
import html.parser
import re
import shutil
import subprocess

import pytest

from gr2_jax.report import charts, curves, page


@pytest.fixture(scope='module')
def document(report, workdir, examples):
  return page.build(report, curves.draw(workdir), examples)


class _Checker(html.parser.HTMLParser):
  """Collects tags and their balance."""

  VOID = {'meta', 'link'}

  def __init__(self):
    super().__init__()
    self.open, self.tags, self.text = [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def _parse(document):
  checker = _Checker()
  checker.feed(document)
  assert not checker.open
  return checker


def test_tags_balance_and_nothing_is_loaded(document):
  tags = _parse(document).tags
  assert not [t for t, _ in tags if t in ('script', 'img', 'iframe', 'object')]
  for _, attributes in tags:
    for name in ('src', 'href'):
      assert attributes.get(name, 'data:,').startswith('data:')
  style = document.split('<style>')[1].split('</style>')[0]
  assert 'url(' not in style and '@import' not in style


def test_retrieval_is_compared_with_intervals(document):
  text = ' '.join(_parse(document).text)
  after = text.split('Differences, with intervals of 95 %')[1]
  for name in ('lm-popularity', 'lm-sasrec'):
    assert name in after and name not in text.split('Differences, with')[0]
  assert '+0.160 [+0.150, +0.170]' in ' '.join(after.split())


def test_data_is_escaped(document):
  assert '<script>' not in document and '&lt;script&gt;' in document
  assert '<b>' not in document and '3&lt;b&gt;' in document
  assert '<s_a_' not in document


def test_tables_show_the_numbers(document, report):
  text = ' '.join(_parse(document).text)
  for system, values in report['rerank']['systems'].items():
    assert system in text and f'{values["ndcg@5"]:.3f}' in text
  for name in ('popularity', 'sasrec', 'illegal'):
    assert name in text
  delta = report['rerank']['deltas']['rl-sft']['recall@1'][0]
  assert f'{delta:+.3f}'.replace('-', '−') in text
  assert '93.0' in text and '53.0' in text
  assert '500 of the lists, with their candidates shuffled' in text


def test_explanations_of_teacher_and_models(document):
  after = ' '.join(_parse(document).text).split('Explanations')[1]
  for number in ('1,200', '0.987', '0.543', '0.210', '0.123'):
    assert number in after


def test_ten_lists_with_their_targets(document, examples):
  assert document.count('class="example"') == 10
  # In the incoming and in the re-ranked column.
  assert document.count('<li class="target">') == 20
  assert document.count('incoming order kept') == sum(
    not example.valid for example in examples
  )
  assert '<span class="move up">▲9</span>' not in document.split('article')[1]


def test_the_verdict_stands_on_top_and_warnings_below_it(
  report, workdir, examples
):
  few = copy.deepcopy(report)
  few['rerank']['n'] = 12
  few['rl'] = {'ended': 'RL ended <b>early</b>.'}
  document = page.build(few, [], examples)
  top = document.split('<main>')[1].split('<h2>')[0]
  assert top.startswith('<p class="verdict">The re-ranker (rl) beats the')
  assert top.count('<li>') == 2 and 'Only 12 test lists' in top
  assert 'RL ended &lt;b&gt;early&lt;/b&gt;.' in top
  assert '<ol class="warnings">' not in page.build(report, [], examples)


def test_systems_stand_in_order_and_are_explained(document, report):
  rows = re.findall('<tr><td>([a-z_]+)</td>', document)
  count = len(report['rerank']['systems'])
  want = ['prerank', 'random', 'sasrec', 'rules', 'evidence', 'sft', 'rl']
  assert rows[:count] == [*want, 'rl_alone', 'direct', 'list']
  meanings = document.split('<dl class="meanings">')[1].split('</dl>')[0]
  assert re.findall('<dt>([a-z_]+)</dt>', meanings) == rows[:count]
  assert 'a linear listwise model on exactly the columns' in meanings


def test_a_run_without_differences_has_a_page(report, examples):
  alone = copy.deepcopy(report)
  rerank = alone['rerank']
  rerank['systems'] = {'random': rerank['systems']['random']}
  rerank['deltas'] = {}
  del rerank['shuffled']
  document = page.build(alone, [], examples)
  assert 'compared with nothing' in document
  assert 'data-chart="rerank/' not in document


def test_counted_charts(document, report):
  assert document.count(charts.MARK) == 18
  assert document.count('data-chart="rerank/') == len(
    report['rerank']['deltas']
  )


@pytest.mark.slow
def test_chromium_draws_every_chart_without_an_error(document, tmp_path):
  browser = shutil.which('chromium') or shutil.which('chromium-browser')
  if browser is None:
    pytest.skip('chromium is not installed: apt-get install chromium')
  path = tmp_path / 'report.html'
  # The page itself has no script; this one measures what was laid out.
  probe = """<script>
    const boxes = [...document.querySelectorAll('svg.chart')].map(svg => {
      const box = svg.getBoundingClientRect();
      const marks = [...svg.querySelectorAll('polyline, circle')].filter(
        mark => { const b = mark.getBBox(); return b.width + b.height > 0; });
      return box.width > 100 && box.height > 50 && marks.length > 0;
    });
    document.body.dataset.drawn = boxes.filter(Boolean).length;
    document.body.dataset.wide =
      document.documentElement.scrollWidth > window.innerWidth;
  </script></body>"""
  path.write_text(document.replace('</body>', probe))
  done = subprocess.run(
    [
      browser,
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--enable-logging=stderr',
      '--window-size=1280,900',
      f'--user-data-dir={tmp_path / "profile"}',
      '--dump-dom',
      path.as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
  assert not console
  drawn = re.search(r'data-drawn="(\d+)"', done.stdout)
  assert int(drawn.group(1)) == document.count(charts.MARK)
  assert 'data-wide="false"' in done.stdout
