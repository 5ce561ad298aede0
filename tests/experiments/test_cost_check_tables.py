"""Tests of experiments.cost_check_tables."""

from dataclasses import replace

from experiments import cost_check_tables, cost_checks, throughput

KNOWN = [throughput.Measured("R14x0.5", 48, 8, 240.0)]
SETTING = throughput.Setting("R14x0.5", 48, 64, "float32", ("cpu",), 1, ("Linux x86_64, 2 cores",))
PREDICTION = throughput.Prediction(240.0, "a guess")
MADE = cost_checks.Made("one", SETTING, 100, PREDICTION, 300.0, 30.0, 40.0, 24e6, 20_000_000)
ON_CARD = throughput.Measured("R50x1", 128, 512, 5000.0, "H200")


def made(**changes):
  return replace(MADE, **changes)


def cells(line):
  return [cell.strip() for cell in line.strip("|").split("|")]


def section(known=KNOWN, cases=(), runs=(MADE,)):
  return list(cost_check_tables.section(known, cases, runs))


def test_a_run_with_all_that_is_known_of_it():
  _, _, row = cost_check_tables.single_runs([MADE])
  assert cells(row) == [
    *("one", "R14x0.5 48 px batch 64", "100"),
    *("240", "300", "0.80", "30 s", "40 s", "0.75", "24.0", "20.0", "1.20", "a guess"),
  ]


def test_a_run_of_which_nothing_is_known():
  changes = dict.fromkeys(("prediction", "rate", "expected_seconds", "wall_seconds"))
  run = made(**changes, expected_bytes=None, folder_bytes=0)
  _, _, row = cost_check_tables.single_runs([run])
  assert cells(row)[3:] == [
    *("none", "none", "", "none", "none", "", "none", "0.0", ""),
    "no prediction for such a place",
  ]


def test_runs_alike_are_a_line_of_medians():
  one_core = replace(SETTING, machines=("Linux x86_64, 1 core",))
  runs = [
    *(made(rate=rate, wall_seconds=wall) for rate, wall in ((200, 50), (300, 60), (500, None))),
    made(steps=200),
    made(setting=one_core, rate=None),
  ]
  rows = [cells(line) for line in section(runs=runs) if line.startswith("| R14x0.5")]
  assert [row[1:4] for row in rows] == [
    ["Linux x86_64, 1 core", "100", "1"],
    ["Linux x86_64, 2 cores", "100", "3"],
    ["Linux x86_64, 2 cores", "200", "1"],
  ]
  assert rows[0][4:7] == ["240", "none", ""]
  assert rows[1][4:] == [
    *("240", "300 (200 to 500)", "0.80", "30 s", "55 s", "0.55", "a guess"),
  ]


def test_how_far_runs_of_one_line_are_apart_is_told():
  text = "\n".join(section(runs=[made(rate=200.0), made(rate=500.0), made(rate=9.0, steps=7)]))
  assert "by a factor of up to 2.5." in text


def test_cases_are_told_with_their_device():
  cases = [
    cost_checks.Case((KNOWN[0], *(replace(KNOWN[0], rate=r) for r in (200, 300))), PREDICTION),
    cost_checks.Case((ON_CARD,), throughput.Prediction(10_000.0, "roofline of H200", bound=True)),
    cost_checks.Case((KNOWN[0],), None),
  ]
  lines = section([*KNOWN, ON_CARD], cases)
  rows = [cells(line) for line in lines if line.startswith("| benchmark")]
  assert rows == [
    ["benchmark: R14x0.5 48 px batch 8", "3", "240", "240 (200 to 300)", "1.00", "a guess"],
    [
      *("benchmark on H200: R50x1 128 px batch 512", "1", "10,000", "5,000", "2.00"),
      "roofline of H200",
    ],
    ["benchmark: R14x0.5 48 px batch 8", "1", "none", "240", "", "no prediction for such a place"],
  ]
  assert any(line.startswith("Each case measured on two CPU cores and on H200 (") for line in lines)


def test_all_runs_together():
  runs = [MADE, made(expected_seconds=None), made(wall_seconds=20.0)]
  assert cost_check_tables.in_all(runs) == (
    "The 2 runs of which both times are known, in all: 60 s expected, 60 s measured (1.00)."
  )
  assert "Of none of these runs" in cost_check_tables.in_all(runs[1:2])
