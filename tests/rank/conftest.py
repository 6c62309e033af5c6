"""Lets the tests of this folder import `tiny`, the tiny LM of the RL tests."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'rl'))
