"""Tables of what runs took."""

from experiments.results import effort, effort_tables, intervals, pages

SIZES = ("R14x0.5", 56, 48, 64, 10)


def test_startups_say_how_many_runs_were_first():
  later = intervals.summarize([4.0, 6.0, 5.0])
  startups = [
    effort.Startup(SIZES, "cpu", intervals.summarize([30.0]), later),
    effort.Startup(SIZES, "H200", intervals.summarize([30.0, 20.0]), None),
  ]
  table = list(effort_tables.startups(startups))[-1]
  assert table.header[-2:] == ("first runs", "later runs")
  program = ("R14x0.5", "56 -> 48", "64", "10")
  assert table.rows == [
    (*program, "cpu", "30.0, 1 run", "5.0 (4.0 to 6.0), 3 runs"),
    (*program, "H200", "25.0 (20.0 to 30.0), 2 runs", "none"),
  ]


def test_efforts():
  taken = [
    effort.Effort(("R14x0.5", 56, 48, 64, 1000), "cpu", 3, 64_000, 320.0, 1800.0),
    effort.Effort(("R14x0.5", 56, 48, 64, 1000), "H200", 1, 64_000, 6400.0, None),
  ]
  _, _, table = effort_tables.efforts(taken)
  network = ("R14x0.5", "56 -> 48", "64", "1,000")
  assert table.rows == [
    (*network, "cpu", "3", "64,000", "320", "0.17", "0.50"),
    (*network, "H200", "1", "64,000", "6,400", "0.00", ""),
  ]
  assert isinstance(table, pages.Table)


def test_nothing_is_said_of_nothing():
  assert [*effort_tables.startups([]), *effort_tables.efforts([])] == []
