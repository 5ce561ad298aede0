"""Tests of experiments.cost.checks."""

import csv
import math

import pytest
import run_folders

from experiments.cost import checks, footprint, throughput
from experiments.results import collect

KNOWN = [
  throughput.Measured("R14x0.5", 48, 8, 240.0),
  throughput.Measured("R14x0.5", 96, 8, 50.0),
]
ON_CARD = throughput.Measured("R50x1", 128, 512, 5000.0, "H200")
UNKNOWN = float("nan")
RUN = {
  "run": "one",
  "machine": "Linux x86_64, 2 cores",
  "network, pixels, batch": "R14x0.5 48 px batch 64",
  "steps": 100,
  "basis": "a guess",
  "predicted images/s": 240.0,
  "measured images/s": 300.0,
  "predicted time": 30.0,
  "measured time": 40.0,
  "predicted MB of disk": 24.0,
  "measured MB of disk": 20.0,
}


def cells(line):
  return [cell.strip() for cell in line.strip("|").split("|")]


def rows(lines):
  """Returns the cells of the rows of a table, without its titles."""
  return [cells(line) for line in lines if line.startswith("| ")][1:]


def two_tables(known=KNOWN, runs=(RUN,)):
  """Returns the rows of the tables of `cost.md`: benchmarks and runs."""
  found = checks.document(known, runs)
  return rows(found["benchmarks"]), rows(found["runs"])


def test_each_case_is_predicted_from_the_others():
  again = throughput.Measured("R14x0.5", 48, 8, 260.0)
  larger = throughput.Measured("R14x0.5", 48, 64, 300.0)
  found = [(c["measured images/s"], c["basis"]) for c in checks.benchmarks([*KNOWN, again, larger])]
  at_96 = "FLOP/s of R14x0.5 at 96 pixels"
  at_48 = "FLOP/s of R14x0.5 at 48 pixels"
  assert found == [(240, at_96), (50, at_48), (260, at_96), (300, at_96)]
  flops = [throughput.training_flops("R14x0.5", size) for size in (48, 96)]
  first, *_ = checks.benchmarks(KNOWN)
  assert first["predicted images/s"] == pytest.approx(50 * flops[1] / flops[0])


def test_benchmarks_are_a_line_for_each_case_and_device():
  again = throughput.Measured("R14x0.5", 48, 8, 260.0)
  found, _ = two_tables([*KNOWN, again, ON_CARD])
  assert [row[:3] + row[4:5] for row in found] == [
    ["H200", "R50x1 128 px batch 512", "1", "5,000"],
    ["two CPU cores", "R14x0.5 48 px batch 8", "2", "250 (240 to 260)"],
    ["two CPU cores", "R14x0.5 96 px batch 8", "1", "50"],
  ]
  assert found[0][-1] == "roofline of H200"


def test_a_case_without_others_has_no_prediction():
  (alone,), _ = two_tables(KNOWN[:1])
  assert alone == [
    *("two CPU cores", "R14x0.5 48 px batch 8", "1", "none", "240", ""),
    "no prediction for this device",
  ]


def test_a_single_run_with_all_values():
  (row,) = rows(checks.single_runs([RUN]))
  assert row == [
    *("one", "Linux x86_64, 2 cores", "R14x0.5 48 px batch 64", "100"),
    *("240", "300", "0.80", "30 s", "40 s", "0.75", "24.0", "20.0", "1.20", "a guess"),
  ]


def test_a_single_run_without_values():
  numbers = {column: UNKNOWN for column, value in RUN.items() if isinstance(value, float)}
  (row,) = rows(checks.single_runs([{**RUN, **numbers, "measured MB of disk": 0.0}]))
  assert row[4:-1] == ["none", "none", "", "none", "none", "", "none", "0.0", ""]


def test_runs_of_one_kind_are_a_line_of_medians():
  one_core = {"machine": "Linux x86_64, 1 core", "measured images/s": UNKNOWN}
  runs = [
    *(
      {**RUN, "measured images/s": rate, "measured time": wall}
      for rate, wall in ((200.0, 50.0), (300.0, 60.0), (500.0, UNKNOWN))
    ),
    {**RUN, "steps": 2000},
    {**RUN, **one_core},
  ]
  _, found = two_tables(runs=runs)
  assert [row[0:1] + row[2:4] for row in found] == [
    ["Linux x86_64, 1 core", "100", "1"],
    ["Linux x86_64, 2 cores", "100", "3"],
    ["Linux x86_64, 2 cores", "2,000", "1"],
  ]
  assert found[0][4:7] == ["240", "none", ""]
  assert found[1][4:] == ["240", "300 (200 to 500)", "0.80", "30 s", "55 s", "0.55", "a guess"]


def test_total_time():
  runs = [RUN, {**RUN, "predicted time": UNKNOWN}, {**RUN, "measured time": 20.0}]
  text = checks.total_time(runs)
  assert "2 runs" in text
  assert text.endswith("60 s predicted, 60 s measured (ratio 1.00).")
  assert "No run" in checks.total_time(runs[1:2])


def test_a_finished_run_beside_its_prediction(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  folder = run_folders.write(tmp_path / "run", config, 0.5, sweep="mine", seconds=(10.5, 71.25))
  (folder / "weights").mkdir()
  (folder / "weights" / "some").write_bytes(bytes(10**6))
  ((run,), left_out) = checks.of_folders(KNOWN, [folder])
  assert left_out == []
  assert (run["run"], run["steps"], run["machine"]) == ("run", 100, "Linux x86_64, 2 cores")
  assert (run["measured images/s"], run["measured time"]) == (272.0, 81.75)
  assert run["predicted images/s"] == pytest.approx(240)
  assert run["basis"] == "measured, median of 1"
  evaluations = -(-config.total_steps // config.eval_every)
  images = 100 * 64 + evaluations * 10_000 / 3
  assert run["predicted time"] == pytest.approx(images / 240)
  assert run["predicted MB of disk"] == footprint.disk_bytes("R14x0.5", 10, "float32") / 1e6
  assert 1 < run["measured MB of disk"] < 1.01


def test_values_that_a_run_does_not_record_are_unknown(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  result = {"images_per_second": None}
  run_folders.write(tmp_path / "a", config, 0.5, result=result, environment={"machine": None})
  ((run,), _) = checks.of_folders(KNOWN, [tmp_path])
  for column in ("predicted images/s", "measured images/s", "predicted time", "measured time"):
    assert math.isnan(run[column])
  run_folders.dump(tmp_path / "a" / "config.json", {**config.to_dict(), "momentum_dtype": "float3"})
  ((run,), _) = checks.of_folders(KNOWN, [tmp_path])
  assert math.isnan(run["predicted MB of disk"])


def test_folders_without_a_finished_run_are_left_out(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  run_folders.write(tmp_path / "runs" / "good", config, 0.5)
  folder = run_folders.write(tmp_path / "runs" / "odd", config, 0.5)
  run_folders.dump(folder / "config.json", {**config.to_dict(), "model": "R7x7"})
  failed = tmp_path / "runs" / "failed"
  run_folders.dump(failed / "error.json", {"kind": "UserError", "message": "no data"})
  (tmp_path / "log.txt").write_text("log")
  (tmp_path / "empty").mkdir()
  names = ("log.txt", "empty", "nowhere", "runs")
  found, left_out = checks.of_folders(KNOWN, [tmp_path / name for name in names])
  assert [run["run"] for run in found] == ["good"]
  paths, reasons = zip(*left_out, strict=True)
  assert list(paths) == [
    *(str(tmp_path / name) for name in ("log.txt", "empty", "nowhere")),
    *(str(tmp_path / "runs" / name) for name in ("failed", "odd")),
  ]
  facts = ("file", "no run", "exist", "UserError: no data", "R7x7")
  for reason, fact in zip(reasons, facts, strict=True):
    assert fact in reason


@pytest.mark.parametrize(
  "elsewhere",
  [
    [],
    [{"machine": "Linux x86_64, 1 core"}],
    [{"machine": None, "device": "NVIDIA H200", "num_devices": 4}],
  ],
)
def test_a_table_gives_the_same_as_the_folders_it_is_from(tmp_path, elsewhere):
  config = run_folders.reduced("model=R14x0.5,shots=5", eval_every=100)
  environment = {"resumed": elsewhere}
  folder = run_folders.write(tmp_path / "run", config, 0.5, sweep="mine", environment=environment)
  ((expected,), _) = checks.of_folders(KNOWN, [folder])
  collect.table(collect.collect(folder).runs).to_csv(tmp_path / "results.csv", index=False)
  (run,) = checks.committed(KNOWN, tmp_path / "results.csv")
  assert math.isnan(run["predicted images/s"]) == bool(elsewhere)  # none for two places
  for column, value in run.items():
    if column != "run" and "MB of disk" not in column:  # which the table doesn't have
      known = expected[column]
      assert value == (known if isinstance(known, str) else pytest.approx(known, nan_ok=True))


def test_the_committed_table_is_read_run_by_run():
  found = checks.committed(throughput.measurements())
  with checks.COMMITTED.open(newline="") as file:
    names = {row["run"] for row in csv.DictReader(file)}
  assert sorted(run["run"] for run in found) == sorted(names)
  assert not any(math.isnan(run["measured images/s"]) for run in found)
  assert not any(math.isnan(run["predicted time"]) for run in found)
