"""Freed memory stays: what is allocated again needs no new pages."""

import pathlib
import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from launch import memory
if sys.argv[1] == 'keep':
  memory.keep()
def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.empty(2**26, np.uint8).fill(1)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != 'glibc', reason='malloc of another library'
)
@pytest.mark.parametrize('mode', ['keep', 'default'])
def test_pages_stay(mode):
  # Huge pages would leave few faults to count either way.
  code = 'import os; os.environ["NUMPY_MADVISE_HUGEPAGE"] = "0"' + _PROGRAM
  result = subprocess.run(
    [sys.executable, '-c', code, mode],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).resolve().parents[2],
  )
  pages = int(result.stdout)
  # 64 MiB are 16,384 pages.
  assert pages < 100 if mode == 'keep' else pages > 10_000
