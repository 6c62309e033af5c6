"""The tree, the direction of imports and the sizes that the design sets."""

import ast
import graphlib
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOP = {
  *('gr2_jax', 'configs', 'launch', 'tests', 'results', '.ci'),
  *('WORKSPACE.md', 'README.md', 'LICENSE'),
  *('requirements.txt', 'pyproject.toml', '.gitignore'),
}
# Lower tiers first; a module imports its own tier and those before it.
TIERS = [
  {
    'bounds',
    'config',
    'assets',
    'devices',
    'sharding',
    'files',
    'processes',
    'progress',
    'version',
  },
  {'text', 'data', 'sid', 'lm', 'rank', 'train'},
  {'decode'},
  {'teacher', 'rl', 'report'},
  {'run'},
  {'stages', 'ranker', 'rerank', 'experiment', 'describe'},
  {'serve', 'aot'},
]
SOURCES = sorted((ROOT / 'gr2_jax').rglob('*.py'))
ALL = SOURCES + sorted(
  path for top in ('configs', 'launch') for path in (ROOT / top).rglob('*.py')
)


def _name(path):
  return str(path.relative_to(ROOT))


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield node.module
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _dotted(path):
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


def _tier(part):
  for index, parts in enumerate(TIERS):
    if part in parts:
      return index
  raise AssertionError(f'gr2_jax/{part} has no place in the import order')


def test_top_level_holds_only_what_the_design_names():
  tracked = subprocess.run(
    ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True
  ).stdout.split()
  assert {name.split('/')[0] for name in tracked} <= TOP


@pytest.mark.parametrize('path', SOURCES, ids=_name)
def test_imports_go_one_way(path):
  parts = path.relative_to(ROOT / 'gr2_jax').with_suffix('').parts
  if parts == ('__init__',):
    return
  own = _tier(parts[0])
  for name in _imports(path):
    pieces = name.split('.')
    assert pieces[0] not in ('launch', 'configs', 'tests'), name
    assert name not in ('absl.flags', 'absl.app'), 'flags belong to launch/'
    if pieces[0] == 'gr2_jax' and len(pieces) > 1:
      assert _tier(pieces[1]) <= own, f'{_name(path)} imports {name}'


def test_no_imports_go_in_a_circle():
  """Imports in functions, and those for types alone, count as well."""
  modules = {_dotted(path): path for path in SOURCES}
  graph = {
    name: modules.keys() & set(_imports(path)) - {name}
    for name, path in modules.items()
  }
  try:
    tuple(graphlib.TopologicalSorter(graph).static_order())
  except graphlib.CycleError as error:
    raise AssertionError(f'a circle: {" <- ".join(error.args[1])}') from None


def test_configs_import_the_settings_alone():
  allowed = {'gr2_jax', 'gr2_jax.experiment'}
  allowed |= {'gr2_jax.text', 'gr2_jax.text.lengths'}
  allowed |= {'gr2_jax.data', 'gr2_jax.data.padding'}  # It rounds up.
  for path in (ROOT / 'configs').glob('*.py'):
    found = {n for n in _imports(path) if n.startswith('gr2_jax')}
    assert found <= allowed, path


@pytest.mark.parametrize('path', ALL, ids=_name)
def test_files_and_functions_stay_small(path):
  text = path.read_text()
  assert text.count('\n') <= 400
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      length = node.end_lineno - node.lineno + 1
      assert length <= 60, f'{_name(path)}:{node.lineno} {node.name}: {length}'


def _positional(node):
  """Counts the positional arguments of a call or a definition."""
  if isinstance(node, ast.Call):
    count = sum(
      len(arg.value.elts)
      if isinstance(arg, ast.Starred)
      and isinstance(arg.value, (ast.Tuple, ast.List))
      else 1
      for arg in node.args
    )
    # What it calls is not one of them.
    return count - ast.unparse(node.func).endswith('partial')
  if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
    return len(names) - (names[:1] in (['self'], ['cls']))
  return 0


def _crowded(text):
  """Returns the lines with more than five positional arguments."""
  return [
    node.lineno for node in ast.walk(ast.parse(text)) if _positional(node) > 5
  ]


@pytest.mark.parametrize('path', ALL, ids=_name)
def test_at_most_five_positional_arguments(path):
  assert not _crowded(path.read_text()), 'name them, or make them keyword-only'


@pytest.mark.parametrize(
  'text, crowded',
  [
    ('f(a, b, c, d, e, x=1)', False),
    ('f(a, b, c, d, e, x)', True),
    ('f(*(a, b, c), d, e, x)', True),
    ('functools.partial(f, a, b, c, d, e)', False),
    ('functools.partial(f, a, b, c, d, e, x)', True),
    ('def f(a, b, c, d, e, *, x): pass', False),
    ('def f(a, b, c, d, e, x=1): pass', True),
    ('def f(self, a, b, c, d, e): pass', False),
    ('def f(self, a, b, c, d, e, x): pass', True),
    ('lambda a, b, c, d, e, x: a', True),
  ],
)
def test_positional_arguments_are_counted(text, crowded):
  assert bool(_crowded(text)) == crowded


def test_tests_mirror_the_package():
  for path in (ROOT / 'tests').rglob('test_*.py'):
    folder = path.relative_to(ROOT / 'tests').parts[:-1]
    if folder and folder[0] not in ('integration', 'configs', 'launch'):
      assert (ROOT / 'gr2_jax').joinpath(*folder).is_dir(), path


# They run code that a file names.
_PICKLES = {'pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve'}


@pytest.mark.parametrize('path', ALL, ids=_name)
def test_nothing_reads_files_that_can_run_code(path):
  assert not _PICKLES & {name.split('.')[0] for name in _imports(path)}
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
      assert isinstance(node.value, ast.Constant) and node.value.value is False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id not in ('eval', 'exec', '__import__'), node.lineno
    if isinstance(node, ast.Attribute):
      # Archives are read member by member, to names that we give.
      assert node.attr not in ('extract', 'extractall'), node.lineno
  torch = [name for name in _imports(path) if name.split('.')[0] == 'torch']
  peers = ROOT / 'launch' / 'bench' / 'peers'
  assert not torch or path.parent == peers, torch


def test_helpers_of_tests_are_imported_from_their_package():
  for path in (ROOT / 'tests').rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and node.attr == 'path':
        assert ast.unparse(node) != 'sys.path', f'{_name(path)}:{node.lineno}'
