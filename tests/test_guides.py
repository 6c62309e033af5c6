"""What the pages promise: links lead somewhere, commands have their flags."""

import ast
import doctest
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted(
  ROOT / name
  for name in subprocess.run(
    ['git', 'ls-files', '*.md'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
)
GUIDES = (
  'gr2_jax/README.md',
  'gr2_jax/ranker/README.md',
  *(
    f'gr2_jax/{x}/README.md' for x in ('data', 'lm', 'serve', 'sid', 'teacher')
  ),
  *(f'{x}/README.md' for x in ('configs', 'launch', 'results', 'tests')),
)
# Of absl and ml_collections, which every command has.
_SHARED = {'help', 'config', 'describe'}


def _name(path):
  return str(path.relative_to(ROOT))


def _flags(module):
  """Returns the flags that a command, or what it imports, defines."""
  own = f'launch/{module}.py'
  if not (ROOT / own).exists():
    own = f'launch/{module}/__main__.py'
  found = set()
  for path in (own, 'launch/start.py', 'launch/cluster.py'):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
      if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr.startswith('DEFINE')
      ):
        found.add(node.args[0].value)
  return found | _SHARED


def _commands(text):
  """Yields (module, flags) of each `launch` command on a page."""
  text = re.sub(r'\\\n\s*', '', text)
  for module, rest in re.findall(r'-m launch\.([a-z]\w*)([^\n`|]*)', text):
    rest = re.sub(r"'[^']*'", '', rest.split(' # ')[0])
    yield module, re.findall(r'(?<!\S)--(\w+)', rest)


@pytest.mark.parametrize('path', PAGES, ids=_name)
def test_links_lead_to_files(path):
  for target in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
    if '://' not in target:
      assert (path.parent / target.split('#')[0]).exists(), target


@pytest.mark.parametrize('path', PAGES, ids=_name)
def test_commands_have_the_flags_that_pages_give(path):
  for module, flags in _commands(path.read_text()):
    assert set(flags) <= _flags(module), (module, flags)


@pytest.mark.parametrize('path', PAGES, ids=_name)
def test_files_that_commands_name_are_there(path):
  pattern = r'(?:bash |--config=|-r )((?:launch|configs|tests)/[\w/.]+\w)'
  for name in re.findall(pattern, path.read_text()):
    assert (ROOT / name).exists() or name.endswith('/NAME.py'), name


@pytest.mark.parametrize('name', GUIDES)
def test_a_guide_has_60_to_150_lines(name):
  assert 60 <= len((ROOT / name).read_text().splitlines()) <= 150


def test_the_map_has_at_most_150_lines():
  assert len((ROOT / 'WORKSPACE.md').read_text().splitlines()) <= 150


def test_the_pieces_in_python_give_what_the_guide_shows():
  text = (ROOT / 'gr2_jax/README.md').read_text()
  (code,) = re.findall(r'```python\n(>>> .*?)```', text, re.DOTALL)
  found = doctest.DocTestParser().get_doctest(code, {}, 'pieces', None, 0)
  assert len(found.examples) <= 30
  assert not doctest.DocTestRunner().run(found).failed


def test_the_readme_is_short():
  text = (ROOT / 'README.md').read_text()
  assert len(text.encode()) <= 10_000
  lines = text.splitlines()
  assert len(lines) <= 180
  # A table has a row a line.
  assert all(len(line) <= 80 for line in lines if not line.startswith('|'))
