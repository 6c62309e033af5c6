"""The acceptance report by hand."""

from gr2_jax.teacher import report, sampling


def test_a_report_by_hand():
  rejected = dict.fromkeys(sampling.REASONS, 0)
  rejected |= {'wrong_top': 3, 'near_duplicate': 1}
  tally = sampling.Tally(4, [4, 2, 1], [2, 1, 0], rejected, 700, 90)
  traces = [sampling.Trace(row, [], '', 0) for row in (0, 1, 3)]
  found = report.summarise(tally, traces, [2, 0, 0, 0], [5, 9, 10])
  assert found == {
    'requested': 4,
    'accepted': 3,
    'acceptance': 0.75,
    'asked': [4, 2, 1],
    'by_attempt': [2, 1, 0],
    'acceptance_by_attempt': [0.5, 0.5, 0.0],
    'by_position': {'lists': [3, 0, 1], 'traces': [2, 0, 1]},
    'rejected': rejected,
    'near_duplicates': 1,
    'explanation_tokens': {'mean': 8.0, 'median': 9.0, 'max': 10},
    'tokens': {
      'prompt': 700,
      'completion': 90,
      'prompt_per_trace': 233.3,
      'completion_per_trace': 30.0,
    },
  }


def test_a_report_of_nothing():
  tally = sampling.Tally(0, [0], [0], dict.fromkeys(sampling.REASONS, 0))
  found = report.summarise(tally, [], [], [])
  assert found['acceptance'] == 0 and found['acceptance_by_attempt'] == [0]
  assert found['by_position'] == {'lists': [], 'traces': []}
  assert found['tokens']['prompt_per_trace'] == 0
