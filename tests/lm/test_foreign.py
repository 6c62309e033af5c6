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


def test_a_tokenizer_that_does_not_fit_is_refused_or_told(tmp_path, caplog):
  with pytest.raises(ValueError, match='ids up to 100, .* has only 100 rows'):
    foreign.check_rows(tmp_path, 101, 100)
  foreign.check_rows(tmp_path, 100, 100)
  foreign.check_rows(tmp_path, 80, 100)  # Padded.
  assert not caplog.records
  foreign.check_rows(tmp_path, 79, 100)
  assert 'has 79 ids for the 100 rows' in caplog.text
