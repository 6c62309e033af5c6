"""Nothing that data or a model wrote becomes part of the page's markup."""

import copy
import html.parser
import xml.etree.ElementTree as ElementTree

import pytest

from gr2_jax.report import charts, curves, intervals, lists, page, sweeps

HOSTILE = [
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(1)>',
  "' onmouseover='alert(1)",
  '</style></title></svg></pre><iframe src=//x>',
  '<!-- ]]> <![CDATA[ &lt;b&gt; &#60;',
  "'); DROP TABLE items;--",
  'javascript:alert(1)',
  '\x00\x1b[31m\x7f',
  '<s_a_1><|sid_end|>{"explanation": "',
]
TAGS = {
  *('html', 'head', 'meta', 'link', 'title', 'style', 'body', 'header', 'main'),
  *('h1', 'h2', 'h3', 'h4', 'p', 'em', 'div', 'span', 'i', 'small', 'dl', 'dt'),
  *('dd', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'ol', 'li', 'article'),
  *('blockquote', 'figure', 'figcaption', 'details', 'summary', 'pre'),
  *('svg', 'line', 'text', 'polyline', 'circle', 'rect'),
}


class _Reader(html.parser.HTMLParser):
  """Fails on markup that no page of ours has; collects the text."""

  def __init__(self):
    super().__init__()
    self.text, self.values = [], []

  def handle_starttag(self, tag, attrs):
    assert tag in TAGS, tag
    for name, value in attrs:
      assert not name.startswith('on'), (tag, name)
      assert name not in ('src', 'srcdoc', 'formaction'), (tag, name)
      assert name != 'href' or value == 'data:,', value
      self.values.append(value)

  def handle_comment(self, data):
    raise AssertionError(f'comment {data!r}')

  def handle_data(self, data):
    self.text.append(data)


def _read(document):
  reader = _Reader()
  reader.feed(document)
  return reader


def _shown(text):
  return text.replace('\x00\x1b', '\ufffd\ufffd').replace('\x7f', '\ufffd')


@pytest.mark.parametrize('text', HOSTILE, ids=range(len(HOSTILE)))
def test_the_page_shows_hostile_text_as_text(report, workdir, text):
  report = copy.deepcopy(report)
  report['teacher'] = report['source'] = report['commit'] = text
  report['dataset']['name'] = text
  report['traces'] = {text: text, 'list': [text], 'map': {text: 1}}
  report['config'] = {text: {'key': text}}
  report['seconds'] = {text: 1.0}
  rerank = report['rerank']
  rerank['systems'][text] = rerank['systems']['rl']
  rerank['deltas'][text] = rerank['deltas']['rl-sft']
  report |= {'verdict': text, 'warnings': [text]}
  report['baselines'][text] = report['baselines']['sasrec']
  entry = lists.Entry(text, text, True)
  cited = '<|sid_begin|><s_a_1><|sid_end|>'
  said = f'{text}{cited} {text}'
  titles = {cited: text}
  example = lists.Example(
    user=text,
    history=[entry],
    incoming=[entry],
    order=[0],
    explanation=said,
    valid=False,
    titles=titles,
  )
  sections = [(text, curves.draw(workdir)[0][1])]
  document = page.build(report, sections, [example])
  reader = _read(document)
  # User, title and detail three times, explanation before and after a citation,
  # which a title stands for, itself in its tooltip; verdict and warning.
  shown = [x for x in reader.text if text in x or _shown(text) in x]
  assert len(shown) >= 12
  assert cited in reader.values and cited not in ''.join(reader.text)
  assert '\x00' not in ''.join(lists.section([example]))


@pytest.mark.parametrize('text', HOSTILE, ids=range(len(HOSTILE)))
def test_charts_show_hostile_names_as_text(text):
  line = charts.Series(text, [1.0, 2.0], [0.1, 0.2])
  drawn = [
    charts.line_chart(text, text, [line, line], text),
    intervals.chart(text, text, {text: [0.1, 0.0, 0.2]}),
  ]
  for chart in drawn:
    reader = _read(chart)
    assert text in ''.join(reader.text)
    assert text in reader.values
  curve = {text: [[1, 2], [0.1, 0.2]]}
  run = {'name': text, 'seed': 0, 'changes': {text: text}, 'curves': curve}
  document = {'base': {'data': {'name': text}}, 'runs': [run]}
  _read(sweeps.build(document))
  picture = sweeps.picture(document, [text])
  if '\x00' not in text:
    # An image is read by XML's rules.
    assert text in ''.join(ElementTree.fromstring(picture).itertext())
