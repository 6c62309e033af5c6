"""A run by several workers ends, with an error, when one of them dies.

xdist by itself lets the others finish what they were given, and passes a run
whose worker died behind its last test.
"""

import pytest

_DEAD = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem):
  pytest.exit(f'A worker died in {crashitem}.', pytest.ExitCode.TESTS_FAILED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
  if error:
    node.config.stash[_DEAD] = True


def pytest_sessionfinish(session):
  if session.config.stash.get(_DEAD, False):
    session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
