"""Turns, rates and rows of a contest; which of several ways is the fastest."""

from launch.bench import contests


def test_a_row_has_the_seconds_by_part():
  calls = []
  contest = contests.Contest(
    'a', 'b', 'steps', 1, ours=lambda: calls.append('ours'),
    theirs=lambda: calls.append('theirs'), goal=1.0,
    split=lambda turns: {'ours': {'x': turns / 3}, 'theirs': {'x': 0.0}},
  )  # fmt: skip
  row = contests.measure(contest, 1)
  assert calls == ['ours', 'theirs'] * 2
  assert row['seconds'] == {'ours': {'x': 0.333}, 'theirs': {'x': 0.0}}


def test_rates_are_of_what_each_side_does(monkeypatch):
  monkeypatch.setattr(contests, 'seconds', lambda run: run())
  contest = contests.Contest(
    'a',
    'b',
    'tokens',
    600,
    ours=lambda: 2.0,
    theirs=lambda: 3.0,
    goal=1.0,
    their_count=90,
  )
  row = contests.measure(contest, 2)
  assert (row['ours'], row['theirs'], row['ratio']) == (300.0, 30.0, 10.0)


def test_the_fastest_way_is_measured_warm(monkeypatch):
  monkeypatch.setattr(contests, 'timed', lambda run: run())
  calls = []

  def way(name, first, later):
    def run():
      calls.append(name)
      return first if calls.count(name) == 1 else later

    return run

  # What compiles at its first call is the fastest afterwards.
  ways = {'plain': way('plain', 2, 2), 'compiled': way('compiled', 9, 1)}
  assert contests.fastest(ways) == ('compiled', ways['compiled'])
  assert calls == ['plain', 'plain', 'compiled', 'compiled']
