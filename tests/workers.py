"""A run by several workers ends, with an error, when one of them dies.

xdist by itself lets the others finish what they were given, and passes a run
whose worker died behind its last test. It gives out the modules with most
tests first; here the folders that take longest come first.
"""

import pytest

_DEAD = pytest.StashKey[bool]()
# So that no worker is left alone with them at the end.
_FIRST = ('integration', 'stages', 'rl', 'decode', 'lm', 'serve')


def pytest_collection_modifyitems(items):
  """Brings the folders where most of the time goes to the front."""
  place = {name: index for index, name in enumerate(_FIRST)}
  items.sort(key=lambda item: place.get(item.path.parent.name, len(place)))


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
