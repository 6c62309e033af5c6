"""Makes `made`, the tokenizers of this folder's tests, importable."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
