"""Tests of experiments.cost_checks."""

import csv

import pytest
import run_folders

from bit_jax.models import architectures
from experiments import cost_checks, footprint, throughput
from experiments.results import reading, table

KNOWN = [
  throughput.Measured("R14x0.5", 48, 8, 240.0),
  throughput.Measured("R14x0.5", 96, 8, 50.0),
]
FORWARD = architectures.forward_flops(architectures.find("R14x0.5"), 10, 48)


def test_each_case_is_predicted_from_the_others():
  first, second = cost_checks.benchmarks(KNOWN)
  flops = [throughput.training_flops("R14x0.5", size) for size in (48, 96)]
  assert (first.measured, second.measured) == ((KNOWN[0],), (KNOWN[1],))
  assert first.prediction.rate == pytest.approx(50 * flops[1] / flops[0])
  assert first.prediction.basis == "FLOP/s of R14x0.5 at 96 pixels"
  assert second.prediction.rate == pytest.approx(240 * flops[0] / flops[1])


def test_what_was_measured_again_is_one_case():
  again = throughput.Measured("R14x0.5", 48, 8, 250.0)
  larger = throughput.Measured("R14x0.5", 48, 64, 300.0)
  found = list(cost_checks.benchmarks([*KNOWN, again, larger]))
  assert [case.measured for case in found] == [(KNOWN[0], again), (larger,), (KNOWN[1],)]
  assert found[0].prediction == found[1].prediction  # neither from the other


def test_a_card_is_predicted_from_its_own_cases_or_its_data_sheet():
  on_card = throughput.Measured("R50x1", 128, 512, 5000.0, "H200")
  (card, *_) = cost_checks.benchmarks([on_card, *KNOWN])
  assert card.measured == (on_card,)
  assert card.prediction.bound
  (alone,) = cost_checks.benchmarks([KNOWN[0]])
  assert alone.prediction is None


def test_a_run_is_held_against_what_was_expected(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  folder = run_folders.write(tmp_path / "run", config, 0.5, sweep="mine", seconds=(10.5, 71.25))
  (folder / "weights").mkdir()
  (folder / "weights" / "some").write_bytes(bytes(10**6))
  ((run,), left_out) = cost_checks.of_folders(KNOWN, [folder])
  assert left_out == []
  assert (run.name, run.steps, run.rate, run.wall_seconds) == ("run", 100, 272.0, 81.75)
  assert run.setting.machines == ("Linux x86_64, 2 cores",)
  assert (run.prediction.rate, run.prediction.measured) == (pytest.approx(240), True)
  evaluations = -(-config.total_steps // config.eval_every)
  images = 100 * 64 + evaluations * 10_000 / 3
  assert run.expected_seconds == pytest.approx(images / 240)
  spec = reading.spec_finder()(config)
  assert run.expected_bytes == footprint.disk_bytes(config, spec)
  assert 10**6 < run.folder_bytes < 10**6 + 10**4


def test_what_a_run_does_not_tell_is_not_made_up(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  result = {"images_per_second": None}
  run_folders.write(tmp_path / "a", config, 0.5, result=result, environment={"machine": None})
  ((run,), _) = cost_checks.of_folders(KNOWN, [tmp_path])
  assert run.prediction is run.rate is run.wall_seconds is run.expected_seconds is None
  config = {**config.to_dict(), "eval_every": None, "momentum_dtype": "float3"}
  run_folders.dump(tmp_path / "a" / "config.json", config)
  run_folders.dump(tmp_path / "a" / "environment.json", {"machine": "x, 2 cores", "device": "cpu"})
  ((run,), _) = cost_checks.of_folders(KNOWN, [tmp_path])
  assert run.expected_seconds is run.expected_bytes is None


def test_folders_that_hold_no_finished_run_are_left_out(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=5")
  run_folders.write(tmp_path / "runs" / "good", config, 0.5)
  for name, changes in (("odd", {"model": "R7x7"}), ("none", {"total_steps": 0})):
    folder = run_folders.write(tmp_path / "runs" / name, config, 0.5)
    run_folders.dump(folder / "config.json", {**config.to_dict(), **changes})
  failed = tmp_path / "runs" / "failed"
  run_folders.dump(failed / "error.json", {"kind": "UserError", "message": "no data"})
  (tmp_path / "log.txt").write_text("log")
  (tmp_path / "empty").mkdir()
  names = ("log.txt", "empty", "nowhere", "runs")
  made, left_out = cost_checks.of_folders(KNOWN, [tmp_path / name for name in names])
  assert [run.name for run in made] == ["good"]
  assert left_out == [
    (str(tmp_path / "log.txt"), "is a file"),
    (str(tmp_path / "empty"), "holds no run"),
    (str(tmp_path / "nowhere"), "doesn't exist"),
    (str(failed), "failed: UserError: no data"),
    (str(tmp_path / "runs" / "none"), "config.json can't be used: total_steps is 0"),
    (str(tmp_path / "runs" / "odd"), "there is no network R7x7"),
  ]


@pytest.mark.parametrize(
  "elsewhere",
  [
    [],
    [{"machine": "Linux x86_64, 1 core"}],
    [{"machine": None, "device": "NVIDIA H200", "num_devices": 4}],
  ],
)
def test_a_table_tells_the_same_as_the_folders_it_is_from(tmp_path, elsewhere):
  config = run_folders.reduced("model=R14x0.5,shots=5", eval_every=100)
  environment = {"resumed": elsewhere}
  folder = run_folders.write(tmp_path / "run", config, 0.5, sweep="mine", environment=environment)
  ((expected,), _) = cost_checks.of_folders(KNOWN, [folder])
  found = reading.read(cost_checks.folders.find(folder)[0][0], reading.spec_finder())
  table.write(tmp_path / "results.csv", [found])
  (run,) = cost_checks.committed(KNOWN, tmp_path / "results.csv")
  assert (run.prediction is None) == bool(elsewhere)  # there is none for two places
  assert run.expected_seconds == pytest.approx(expected.expected_seconds)
  for name in ("setting", "steps", "prediction", "rate", "wall_seconds"):
    assert getattr(run, name) == getattr(expected, name)


def test_the_committed_table_is_read_run_by_run():
  made = cost_checks.committed(throughput.measurements())
  with cost_checks.COMMITTED.open(newline="") as file:
    names = {row["run"] for row in csv.DictReader(file)}
  assert sorted(run.name for run in made) == sorted(names)
  assert all(run.prediction and run.rate and run.wall_seconds for run in made)
