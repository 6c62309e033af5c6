"""A made-up report with everything that a page shows."""

import dataclasses
import json
import math

import numpy as np
import pytest

from gr2_jax.report import lists, results


def _write(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(record) + '\n' for record in records))


@pytest.fixture(scope='session')
def workdir(tmp_path_factory):
  """A run's directory with the metrics of every stage."""
  root = tmp_path_factory.mktemp('run')
  rng = np.random.default_rng(0)
  decay = lambda i, n: 4 * math.exp(-4 * i / n) + 0.1 * rng.random() + 2
  _write(
    root / 'sid' / 'metrics.jsonl',
    [
      {
        'step': i + 1,
        'loss': decay(i, 60),
        'mse': decay(i, 60) / 3,
        **{f'perplexity_{level}': 40.0 + i / 3 + level for level in range(4)},
      }
      for i in range(60)
    ],
  )
  for name in ('midtrain', 'sft', 'candidates/sasrec'):
    _write(
      root / name / 'metrics.jsonl',
      [
        {
          'step': 10 * i + 10,
          'loss': decay(i, 150),
          **{
            f'nll/{task}': decay(i, 150) + task_id
            for task_id, task in enumerate(('next_item', 'persona'))
            if name == 'midtrain'
          },
          **({'valid_nll': decay(i, 150)} if i % 25 == 24 else {}),
        }
        for i in range(150)
      ],
    )
  _write(
    root / 'rl' / 'metrics.jsonl',
    [
      {
        'step': i + 1,
        'reward': 0.3 * i / 80 - 0.1 + 0.1 * rng.standard_normal(),
        'rank_reward': 0.2 * i / 80 - 0.1 + 0.1 * rng.standard_normal(),
        'entropy': 1.2 - i / 150,
        'clip_fraction': 0.02 * rng.random(),
        'identity_rate': 0.3 - 0.2 * i / 80,
        'valid_rate': 1.0,
      }
      for i in range(80)
    ],
  )
  return root


@pytest.fixture(scope='session')
def report():
  """The content of a `report.json`."""
  rng = np.random.default_rng(0)
  incoming = np.tile(np.arange(10, dtype=np.int32), (700, 1))
  targets = np.minimum(rng.geometric(0.2, 700) - 1, 9).astype(np.int32)
  noisy = lambda scale: results.reorder(
    incoming,
    -incoming
    + scale * rng.standard_normal(incoming.shape)
    + 2.0 * (incoming == targets[:, None]),
  )
  table, deltas = results.summarise(
    {
      # In another order than they are shown in.
      'sft': noisy(5.0),
      'evidence': noisy(2.5),
      'prerank': results.System(incoming, np.ones(700, bool)),
      'sasrec': noisy(4.0),
      'random': noisy(1e6),
      'rl_alone': noisy(3.5),
      'rules': noisy(4.5),
      'list': dataclasses.replace(noisy(3.0), tokens=np.full(700, 61)),
      'rl': dataclasses.replace(noisy(2.0), tokens=np.full(700, 93)),
      'direct': dataclasses.replace(noisy(3.0), tokens=np.full(700, 53)),
    },
    incoming,
    targets,
    seed=0,
    users=np.arange(700) // 2,
  )
  full = {'recall@5': 0.1, 'recall@10': 0.16, 'ndcg@5': 0.07, 'ndcg@10': 0.09}
  triples = {
    name: [value, value - 0.01, value + 0.01] for name, value in full.items()
  }
  full = {'n': 9430, **full, 'illegal_rate': 0.0}
  own = {
    **full,
    'prefix_recall@10': [0.6, 0.3, 0.2, 0.16],
    'intervals': triples,
    'deltas': {'lm-popularity': triples, 'lm-sasrec': triples},
  }
  said = {
    'explanations': 1200,
    'citing': 0.987,
    'cited_exist': 0.876,
    'cited_history': 0.765,
    'cited_candidates': 0.654,
    'last_is_top': 0.543,
    'distinct_1': 0.432,
    'distinct_2': 0.321,
    'distinct_3': 0.21,
  }
  return {
    'config': {'seed': 0, 'rl': {'alpha': 0.2}, 'note': '<script>'},
    'seed': 0,
    'commit': '0123456789abcdef',
    'dataset': {
      'name': 'ml-100k',
      'users': 943,
      'items': 1682,
      'interactions': 100000,
      'sha256': 'f' * 64,
    },
    'sid': {'uniqueness': 0.9982, 'collisions': 0, 'perplexity': [51.2, 48.1]},
    'source': 'lm',
    'retrieval': own,
    'baselines': {'popularity': full, 'sasrec': full},
    'traces': {
      'teacher': 'rules',
      'accepted': 1200,
      'by_attempt': [800, 400],
      'quality': said,
    },
    'explanations': {'rl': said | {'citing': 0.123}},
    'rerank': {
      'n': 700,
      'k': 10,
      'hit_rate': 0.16,
      'coverage': 0.4,
      'top_share': 0.03,
      'systems': table,
      'deltas': deltas,
      'shuffled': {'n': 500, 'sft': deltas['rl-prerank']},
    },
    'teacher': 'rules',
    'seconds': {'data': 3.0, 'rl': 240.5},
  }


@pytest.fixture(scope='session')
def examples():
  """Ten lists; the first one with text that must be escaped."""

  def entry(i, target=False):
    detail = f'<s_a_{i}><s_b_{2 * i}><s_c_{i}><s_d_7> · Comedy > Romance'
    return lists.Entry(f'Film number {i} (19{60 + i})', detail, target)

  made = []
  for user in range(10):
    incoming = [entry(i, i == user) for i in range(10)]
    order = [user, *(i for i in range(10) if i != user)]
    made.append(
      lists.Example(
        user=f'{user}<b>',
        history=[entry(20 + i) for i in range(14)],
        incoming=incoming,
        order=order if user % 3 else range(10),
        explanation='The history <s_a_21><s_b_42><s_c_21><s_d_7> turns to '
        'comedies of the eighties; among the candidates <s_a_3> is one more.',
        valid=user % 4 != 0,
      )
    )
  return made
