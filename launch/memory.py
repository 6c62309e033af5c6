"""Keeps the memory that programs free, instead of giving it back.

XLA's CPU backend allocates the temporary buffer of a program for each call:
hundreds of megabytes for a training step. glibc maps such blocks and unmaps
them again, so that the kernel clears every page of them each time; where the
machine is virtual, its host may have to find the pages first. On two cores of
an AMD EPYC a step of a 10 M decoder took 0.32 to 1.3 s, without huge pages 0.43
to 0.9 s. Kept in the heap, the pages stay, and the step takes 0.32 s. Huge
pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as in `launch/quickstart.sh`)
matter little beside that.
"""

import ctypes
import platform

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep() -> None:
  """Makes malloc keep what is freed; no effect on other systems than glibc's.

  To be called before threads are started: one arena serves all of them, since
  those of threads cannot hold large blocks, and would map them.
  """
  if platform.libc_ver()[0] != 'glibc':
    return
  mallopt = ctypes.CDLL(None).mallopt
  for option, value in (
    (_M_ARENA_MAX, 1),
    (_M_MMAP_MAX, 0),
    # As a size without sign: never.
    (_M_TRIM_THRESHOLD, -1),
  ):
    if not mallopt(option, value):
      raise RuntimeError(f'mallopt({option}, {value}) was refused.')
