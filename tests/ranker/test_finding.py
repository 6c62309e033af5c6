"""The retriever of a finished run, as users load it."""

import shutil

import jax
import ml_collections
import numpy as np
import pytest

from gr2_jax import assets, rerank, sharding
from gr2_jax import config as config_lib
from gr2_jax.data import dataset as dataset_lib
from gr2_jax.data import stored
from gr2_jax.lm import decoder, io
from gr2_jax.ranker import catalogues
from tests.integration import small

HISTORIES = [['i1', 'unknown', 'i3'], []]
NEW = dataset_lib.Item('n1', 'Film new', ('Drama',))
# That of no item of the run.
SID = np.array([[4, 2]], np.int32)


@pytest.fixture(scope='module')
def run(tmp_path_factory, mesh1):
  """A run that is finished up to its candidates."""
  root = tmp_path_factory.mktemp('run')
  config = ml_collections.ConfigDict(
    {
      **small.config().to_dict(),
      'candidates': {'width': 22, 'k': 4, 'batch_size': 2},
    }
  )
  parts = small.store(root)
  shape = small.model(parts)
  params = decoder.init(shape, mesh1, sharding.TRAIN_RULES, jax.random.key(0))
  io.save(root / 'midtrain' / 'model', shape, params)
  parts.vocab.save(root / 'midtrain' / 'vocab')
  (root / 'sid').mkdir()
  np.savez(root / 'sid' / 'sids.npz', sids=parts.sids)
  config_lib.save(config, root / 'config.json')
  small.finish(root, 'data', data=config.data)
  small.finish(root, 'sid', ['data'])
  small.finish(root, 'midtrain', ['data', 'sid'], text=config.text)
  small.finish(root, 'candidates', ['midtrain'], candidates=config.candidates)
  return root


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
  monkeypatch.setattr(stored, 'load', lambda directory: small.dataset())
  monkeypatch.setattr(assets, 'keep_programs', lambda: None)


def test_it_finds_what_the_model_says_comes_next(run, mesh1):
  """The likeliest of all semantic IDs, without what was seen."""
  finder = rerank.load_retriever(run, mesh1)
  first, empty = finder.lists(HISTORIES, k=4)
  assert len(empty['candidates']) == 4
  assert first['history'] == ['i1', 'i3'] and empty['history'] == []
  store = finder.store
  prompt = store.prompter.retrieval(np.array([1, 3]))
  shape, params = io.load_for_decoding(run / 'midtrain' / 'model', mesh1)
  fmt = store.vocab.answer_format()
  tokens = np.array([[*prompt, 0]] * 20, np.int32)
  codes = store.vocab.sid_tokens(store.sids).reshape(20, 2)
  tokens[:, -1] = codes[:, 0]
  with sharding.use(mesh1, sharding.DECODE_RULES):
    places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    logits = decoder.Decoder(shape).apply({'params': params}, tokens, places)
  logits = np.asarray(logits, np.float64)[:, -2:]
  expected = 0.0
  for level in range(2):
    begin = fmt.sid_offset + level * fmt.codes
    own = logits[:, level, begin : begin + fmt.codes]
    own = own - np.log(np.exp(own).sum(-1, keepdims=True))
    expected += own[np.arange(20), store.sids[:, level]]
  expected[[1, 3]] = -np.inf
  order = np.argsort(-expected)[:4]
  assert first['candidates'] == [f'i{item}' for item in order]
  np.testing.assert_allclose(first['scores'], expected[order], atol=1e-2)


def test_a_catalogue_of_the_run_is_found_and_another_refused(
  run, mesh1, tmp_path
):
  path = tmp_path / 'catalogue.jsonl'
  stamp = catalogues.stamp(small.sids().astype(np.int32))
  catalogues.write(path, [NEW], SID, stamp)
  finder = rerank.load_retriever(run, mesh1, path)
  (found,) = finder.lists([['n1', 'i3']], k=22)
  assert found['history'] == ['n1', 'i3']
  assert len(found['candidates']) == len(found['scores']) == 19
  assert not {'n1', 'i3'} & set(found['candidates'])
  (found,) = finder.lists([['i3']], k=22)
  assert 'n1' in found['candidates']
  catalogues.write(path, [NEW], SID, 'of another run')
  with pytest.raises(ValueError, match="tokenizer is 'of another run'"):
    rerank.load_retriever(run, mesh1, path)


def test_what_is_not_finished_or_does_not_fit_is_refused(run, mesh1, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'config\.json is missing'):
    rerank.load_retriever(tmp_path, mesh1)
  finder = rerank.load_retriever(run, mesh1)
  with pytest.raises(ValueError, match='width 22 cannot give lists of 23'):
    finder.lists(HISTORIES, k=23)
  unfit = tmp_path / 'unfit'
  shutil.copytree(run, unfit)
  small.finish(unfit, 'sid', ['data'], sid={'codes': 9})
  with pytest.raises(ValueError, match="was made from another 'sid'"):
    rerank.load_retriever(unfit, mesh1)
  (unfit / 'candidates' / 'DONE').unlink()
  with pytest.raises(FileNotFoundError, match="'candidates' of .* is not fin"):
    rerank.load_retriever(unfit, mesh1)
