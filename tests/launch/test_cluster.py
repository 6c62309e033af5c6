"""The flags that join processes; joining itself: integration/test_processes."""

import jax
import pytest
from absl import app, flags
from absl.testing import flagsaver

from launch import cluster


@pytest.fixture(autouse=True)
def _parsed():
  flags.FLAGS.mark_as_parsed()


def test_without_flags_there_is_one_process():
  cluster.join()
  assert jax.process_count() == 1


@pytest.mark.parametrize(
  'given, match',
  [
    ({'num_processes': 2, 'process_id': 0}, "--coordinator=''"),
    ({'coordinator': 'a:1', 'num_processes': 2}, '--process_id=None'),
    (
      {'coordinator': 'a:1', 'num_processes': 2, 'process_id': 2},
      'the processes are 0 to 1',
    ),
  ],
)
def test_flags_that_do_not_fit_are_refused(given, match):
  with flagsaver.flagsaver(**given), pytest.raises(app.UsageError, match=match):
    cluster.join()
