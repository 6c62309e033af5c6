"""The learning curves of a run: which metrics of which stage, and as what."""

import dataclasses
import pathlib
import re

from gr2_jax import files
from gr2_jax.report import charts


@dataclasses.dataclass(frozen=True)
class Curve:
  """One chart.

  Attributes:
    title: its heading.
    keys: regular expressions; each metric that one of them matches whole is a
      line.
  """

  title: str
  keys: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Section:
  """The charts of one `metrics.jsonl`.

  Attributes:
    title: heading.
    path: of the file, in the run's directory.
    curves: the charts.
    x_label: what `step` counts.
  """

  title: str
  path: str
  curves: tuple[Curve, ...]
  x_label: str = 'step'


_RL = (
  Curve('Reward', ('reward', 'rank_reward')),
  Curve('Entropy', ('entropy', '(|explained/)place_entropy')),
  Curve('Clip fraction', ('clip_fraction',)),
  Curve('Identity and valid rate', ('identity_rate', 'valid_rate')),
  Curve('Validation, greedy', ('valid_recall@1', 'valid_ndcg@5')),
  Curve('Groups with variance', ('fill_rate', 'kept_rate')),
  Curve('Answer length', ('answer_tokens',)),
  Curve('Ratio of policies', ('ratio_min', 'ratio', 'ratio_max')),
  Curve('KL to the reference', ('kl',)),
  Curve('Sampler against trainer', ('sampler_gap', 'logp_gap')),
)
SECTIONS = (
  Section(
    'Semantic IDs: RQ-VAE',
    'sid/metrics.jsonl',
    (
      Curve('Loss', ('loss', 'mse')),
      Curve('Codebook perplexity by level', (r'perplexity_\d+',)),
      Curve('Uniqueness', ('uniqueness',)),
    ),
    'block',
  ),
  Section(
    'Mid-training: only the new rows',
    'midtrain/new_rows/metrics.jsonl',
    (
      Curve('Training loss', ('loss',)),
      Curve('Loss by task', ('nll/.*',)),
    ),
  ),
  Section(
    'Mid-training',
    'midtrain/metrics.jsonl',
    (
      Curve('Training loss', ('loss',)),
      Curve('Loss by task', ('nll/.*',)),
      Curve('Held-out next item: loss', ('valid_nll',)),
    ),
  ),
  Section(
    'SASRec',
    'candidates/sasrec/metrics.jsonl',
    (
      Curve('Training loss', ('loss',)),
      Curve('Validation', ('valid_recall@10', 'valid_ndcg@10')),
    ),
  ),
  Section(
    'SFT',
    'sft/metrics.jsonl',
    (
      Curve('Training loss', ('loss',)),
      Curve('Held-out loss', ('valid_(|alone_|explained_|choice_)nll',)),
      Curve('Held-out words: loss', ('valid_words_nll',)),
    ),
  ),
  Section('RL: DAPO', 'rl/metrics.jsonl', _RL),
  Section('RL without explanations', 'direct/metrics.jsonl', _RL),
)


def _lines(records: list[dict], curve: Curve) -> list[charts.Series]:
  names = sorted({key for record in records for key in record})
  chosen = [
    name
    for key in curve.keys
    for name in names
    if re.fullmatch(key, name) and name != 'step'
  ]
  lines = []
  for name in dict.fromkeys(chosen):
    found = [(r['step'], r[name]) for r in records if name in r]
    x, y = zip(*found, strict=True)
    lines.append(charts.Series(name.removeprefix('nll/'), x, y))
  return lines


def draw(workdir: pathlib.Path) -> list[tuple[str, list[str]]]:
  """Draws the curves of every stage that recorded any.

  Args:
    workdir: the run's directory.

  Returns:
    (heading, charts as HTML) by section, in the order of the stages. A stage
    that was not run (the first phase of mid-training, SASRec) has no section,
    and a metric that was not recorded no line.
  """
  sections = []
  for section in SECTIONS:
    path = workdir / section.path
    records = list(files.read_jsonl(path)) if path.exists() else []
    stem = section.path.removesuffix('/metrics.jsonl')
    drawn = []
    for curve in section.curves:
      lines = _lines(records, curve)
      if lines:
        name = f'{stem}/{curve.title}'
        drawn.append(
          charts.line_chart(name, curve.title, lines, section.x_label)
        )
    if drawn:
      sections.append((section.title, drawn))
  return sections
