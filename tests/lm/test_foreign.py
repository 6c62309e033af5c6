"""Where checkpoints of others lie, and what tells them apart."""

import pytest

from gr2_jax.lm import foreign


def test_a_path_is_found_and_what_is_none_is_named(tmp_path):
  assert foreign.find(str(tmp_path), 'x') == tmp_path
  for name in (str(tmp_path / 'none'), ''):
    with pytest.raises(FileNotFoundError, match='traces.model = .*is no dir'):
      foreign.find(name, 'traces.model')


def test_names_sizes_and_json_make_the_fingerprint(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  (tmp_path / 'weights').write_text('ab')
  first = foreign.fingerprint(tmp_path)
  (tmp_path / 'weights').write_text('cd')
  assert foreign.fingerprint(tmp_path) == first
  (tmp_path / 'config.json').write_text('[]')
  assert foreign.fingerprint(tmp_path) != first
  one = foreign.fingerprint(tmp_path / 'weights')
  (tmp_path / 'weights').write_text('longer')
  assert foreign.fingerprint(tmp_path / 'weights') != one
