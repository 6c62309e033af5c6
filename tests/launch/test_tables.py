"""The command that writes the numbers of the pages."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(*flags):
  found = subprocess.run(
    [sys.executable, '-m', 'launch.tables', *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  return found.returncode, found.stdout + found.stderr


def test_stale_blocks_are_told_and_mended(tmp_path):
  for name in ('README.md', 'results', 'configs'):
    copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
    copy(ROOT / name, tmp_path / name)
  flags = [f'--root={tmp_path}']
  assert _run('--check', *flags) == (0, 'Every block is as its file has it.\n')
  page = tmp_path / 'results/quickstart.md'
  before = page.read_text()
  stale = before.replace(
    '| `prerank` | the incoming order | 0.', '| x | y | 9.'
  )
  assert stale != before
  page.write_text(stale)
  code, told = _run('--check', *flags)
  assert code == 1 and page.read_text() == stale
  assert 'results/quickstart.md:' in told and 'block quickstart_systems' in told
  assert '  - | x | y | 9.' in told and '  + | `prerank` | ' in told
  assert told.endswith('run .venv/bin/python -m launch.tables\n')
  assert _run(*flags)[0] == 0 and page.read_text() == before


def test_a_missing_file_ends_in_one_message(tmp_path):
  code, told = _run(f'--root={tmp_path}')
  assert code == 1 and 'results/tables.toml' in told
  assert 'Traceback' not in told
