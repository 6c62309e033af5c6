"""Lets the tests of this folder import the made-up run of integration/."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'integration'))
