"""What every command sets up: the cache of compiled programs is on."""

import os
import pathlib
import subprocess
import sys

import pytest

from launch import tpu

_PROGRAM = """
import jax
from launch import start
start.set_up()
print(jax.config.jax_compilation_cache_dir)
print(jax.config.jax_enable_compilation_cache)
"""


@pytest.mark.parametrize('own', ['', 'elsewhere'])
def test_compiled_programs_are_kept_by_default(tmp_path, own):
  settings = {'JAX_COMPILATION_CACHE_DIR': own} if own else {}
  result = subprocess.run(
    [sys.executable, '-c', _PROGRAM],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).resolve().parents[2],
    env={'PATH': '', 'GR2_CACHE': str(tmp_path), **settings},
  )
  place, enabled = result.stdout.split()
  assert place == (own or str(tmp_path / 'xla'))
  assert enabled == 'True'


@pytest.mark.parametrize(
  'given, want',
  [
    (None, '--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000'),
    ('--a=1', '--a=1 --xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000'),
    *[('--xla_jf_spmd_threshold_for_windowed_einsum_mib=0 --b',) * 2],
  ],
)
def test_the_tpu_compiler_gets_its_flags(monkeypatch, given, want):
  monkeypatch.delenv('LIBTPU_INIT_ARGS', raising=False)
  if given:
    monkeypatch.setenv('LIBTPU_INIT_ARGS', given)
  tpu.set_flags()
  assert os.environ['LIBTPU_INIT_ARGS'] == want


_API = """
import jax, jax.numpy as jnp
jax.jit(lambda x: x + 1)(1.0)
from gr2_jax import rerank
try:
  rerank.load('nothing')
except FileNotFoundError as error:
  print('config.json is missing' in str(error))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
"""


def test_the_python_api_keeps_programs_too(tmp_path):
  """In a process that compiled something before, as well."""
  result = subprocess.run(
    [sys.executable, '-c', _API],
    capture_output=True,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).resolve().parents[2],
    env={'PATH': '', 'JAX_PLATFORMS': 'cpu', 'GR2_CACHE': str(tmp_path)},
  )
  assert result.stdout == 'True\n'
  assert list((tmp_path / 'xla').iterdir())


_SHOWN = """
import logging, sys
from launch import start
for path in sys.argv[1:]:
  print([
    start.is_shown(logging.LogRecord('', level, path, 1, '', (), None))
    for level in (logging.INFO, logging.WARNING, logging.ERROR)
  ])
"""


def test_others_are_shown_where_one_can_act_on_it():
  root = pathlib.Path(__file__).resolve().parents[2]
  installed = root / '.venv/lib/python3.11/site-packages'
  paths = [
    root / 'gr2_jax/stages/pipeline.py',
    installed / 'orbax/checkpoint.py',
    installed / 'tensorflow_datasets/core/dataset_builder.py',
  ]
  result = subprocess.run(
    [sys.executable, '-c', _SHOWN, *map(str, paths)],
    capture_output=True,
    text=True,
    check=True,
    cwd=root,
  )
  assert result.stdout.splitlines() == [
    '[True, True, True]', '[False, True, True]', '[False, False, True]'
  ]  # fmt: skip
