"""Which code this is: what reports and checkpoints say of it."""

import functools
import pathlib
import subprocess

import gr2_jax


def find_commit() -> str:
  """Returns the commit of this code, marked where files were changed."""
  root = pathlib.Path(__file__).resolve().parent

  def git(*arguments: str) -> str | None:
    try:
      done = subprocess.run(
        ['git', *arguments], cwd=root, capture_output=True, text=True
      )
    except FileNotFoundError:
      return None
    return done.stdout.strip() if done.returncode == 0 else None

  # An installed package may lie inside of a repository that is another.
  top = git('rev-parse', '--show-toplevel')
  commit = git('rev-parse', 'HEAD')
  if commit is None or pathlib.Path(top or '') != root.parent:
    return 'unknown (no git repository)'
  changed = git('status', '--porcelain', '--untracked-files=no')
  return f'{commit}-changed' if changed else commit


@functools.cache
def describe() -> str:
  """Returns package version and commit, as checkpoints hold them."""
  return f'gr2_jax {gr2_jax.__version__}, commit {find_commit()}'
