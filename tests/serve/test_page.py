"""The page in a real browser."""

import re

import pytest

from tests.serve import chromium, fakes, live

HOSTILE = {
  'x1': '<img src=x onerror="document.title = 1">',
  'x2': '</td><script>document.title = 2</script>&amp; 100 %',
  '<b>x3</b>': 'Its id is hostile, too',
  'long': 'A title of many words that goes on and on ' * 4 + 'W' * 90,
}


class Explains(fakes.Sorts):
  """Writes titles that are hostile."""

  def _answer(self, kind, record, where):
    found = super()._answer(kind, record, where)
    if kind == 'explained' and not found.failed:
      text = f'Who liked {HOSTILE["x1"]} likes {HOSTILE["x2"]}.'
      found.record['explanation_titles'] = text
    return found


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  if chromium.BROWSER is None:
    pytest.skip('chromium is not installed: apt-get install chromium')
  profile = tmp_path_factory.mktemp('profile')
  engine = Explains(titles=fakes.TITLES | HOSTILE)
  with live.port(engine) as port, chromium.opened(profile) as found:
    found.call('Page.navigate', url=f'http://127.0.0.1:{port}/')
    found.wait("document.querySelector('#candidates')?.value")
    yield found


# Place before, after, title, id, score.
ROWS = """[...document.querySelectorAll('#rows tr')].map(row => [
  ...[...row.children].slice(0, 2), row.querySelector('.title'),
  row.querySelector('.id'), row.children[3]].map(cell => cell.textContent))"""
TEXT = 'document.querySelector({!r}).textContent'


def _rank(page, history, candidates):
  """Types a list and sends it; returns the rows of the table."""
  page.ask("document.querySelector('#result').hidden = true")
  page.type('#history', history)
  page.type('#candidates', candidates)
  page.click('button')
  page.wait("!document.querySelector('#result').hidden")
  return page.ask(ROWS)


@pytest.mark.slow
def test_a_person_sees_before_and_after(page):
  assert page.ask(TEXT.format('#model')) == 'fake/rl, 13 items'
  # The example can be sent as it is.
  page.click('button')
  page.wait("!document.querySelector('#result').hidden")
  rows = _rank(page, 'i0', 'i1, i3 ,i2')
  assert rows == [
    ['2', '1 ▲', 'Film <b>3</b>', 'i3', '0.000'],
    ['3', '2 ▲', 'Film <b>2</b>', 'i2', '-1.000'],
    ['1', '3 ▼', 'Film <b>1</b>', 'i1', '-2.000'],
  ]
  assert page.ask(TEXT.format('#explanation')) == ''
  assert page.ask(TEXT.format('#timings')).endswith(' ms')
  page.click('#explain')
  _rank(page, 'i0', 'i1, i3')
  assert page.ask(TEXT.format('#explanation')).startswith('Who liked <img')
  page.click('#explain')
  rows = _rank(page, '', 'i5, i1')
  assert [row[1] for row in rows] == ['1', '2']
  page.type('#candidates', 'free, i1')
  page.click('button')
  page.wait("document.querySelector('#timings').textContent.includes(';')")
  rows = page.ask(ROWS.replace("'.title'", "'.id'"))
  assert [row[0] for row in rows] == ['1', '2']
  assert 'the incoming order' in page.ask(TEXT.format('#timings'))


@pytest.mark.slow
def test_an_error_is_a_message(page):
  page.type('#candidates', 'i1')
  page.click('button')
  page.wait(TEXT.format('#problem'))
  assert page.ask(TEXT.format('#problem')) == 'The request: give 2 or more.'
  assert page.ask("document.querySelector('#result').hidden")
  _rank(page, 'i0', 'i1, i3')
  assert page.ask(TEXT.format('#problem')) == ''


@pytest.mark.slow
def test_hostile_titles_are_text(page):
  page.click('#explain')
  rows = _rank(page, 'x1', ', '.join(HOSTILE))
  page.click('#explain')
  assert {row[3]: row[2] for row in rows} == HOSTILE
  inside = "document.querySelectorAll('#result {}').length"
  for name in ('img', 'script', 'b', 'i'):
    assert page.ask(inside.format(name)) == 0
  assert page.ask('document.title') == 'gr2_jax'
  bad = ('Runtime.exceptionThrown', 'Page.javascriptDialogOpening')
  assert not [event for event in page.events if event[0] in bad]


@pytest.mark.slow
@pytest.mark.parametrize('dark', [False, True])
@pytest.mark.parametrize('width', [1280, 360])
def test_it_fits_and_can_be_read(page, tmp_path, width, dark):
  page.show(width, dark)
  page.click('#explain')
  _rank(page, 'i1, i2', ', '.join(HOSTILE))
  page.click('#explain')
  page.picture(tmp_path / f'page_{width}_{"dark" if dark else "light"}.png')
  wide = 'document.documentElement.scrollWidth > window.innerWidth'
  assert not page.ask(wide)
  # A heading is not broken into letters.
  assert page.ask("document.querySelector('th').clientHeight") < 50
  for name in ('body', '#problem', '.hint', '.id', '.up', '.down', 'button'):
    assert _contrast(page, name) >= 4.5, name


def _contrast(page, selector):
  """Returns the contrast of text as WCAG 2 defines it, 1 to 21."""
  colours = page.ask(f"""(() => {{
    const own = getComputedStyle(document.querySelector({selector!r}));
    const behind = own.backgroundColor === 'rgba(0, 0, 0, 0)'
      ? getComputedStyle(document.body) : own;
    return [own.color, behind.backgroundColor];
  }})()""")
  found = []
  for colour in colours:
    shares = [int(x) / 255 for x in re.findall(r'\d+', colour)[:3]]
    light = [x / 12.92 if x <= 0.04 else ((x + 0.055) / 1.055) ** 2.4
             for x in shares]  # fmt: skip
    found.append(0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2])
  return (max(found) + 0.05) / (min(found) + 0.05)
