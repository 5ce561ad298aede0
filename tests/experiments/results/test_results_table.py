"""The table of all runs."""

import csv

import pytest
import run_folders

from experiments import reduced
from experiments.results import table


def test_a_row_for_each_run_and_metric(tmp_path):
  first = run_folders.reduced("model=R14x0.5,shots=10,seed=3")
  result = {"top5": 0.9, "warnings": ["one", "two, three"]}
  run_folders.write(tmp_path / "runs" / "b", first, 0.44, sweep="offline", result=result)
  second = run_folders.config("model=R14x0.5,weights=none")
  run_folders.write(tmp_path / "runs" / "a", second, 0.7, result={"seconds": None})
  table.write(tmp_path / "results.csv", run_folders.collected(tmp_path / "runs").runs)
  with (tmp_path / "results.csv").open() as file:
    rows = list(csv.DictReader(file))
  found = [(r["run"], r["metric"], r["value"]) for r in rows]
  assert found == [
    ("b", "top1", "0.44"),
    ("b", "top5", "0.9"),
    ("b", "loss", "1.5"),
    ("a", "top1", "0.7"),
    ("a", "loss", "1.5"),
  ]
  few, full = rows[0], rows[3]
  expected = {
    "sweep": "offline",
    "model": "R14x0.5",
    "start": "R14x0.5-CIFAR100",
    "dataset": "cifar10",
    "protocol": "final",
    "regime": "small",
    "shots": "10",
    "seed": "3",
    "preset": "code",
    "reason": reduced.REASON,
    "batch_size": "64",
    "resize": "56",
    "crop": "48",
    "steps": "100",
    "mixup_alpha": "0.0",
    "dtype": "float32",
    "num_train": "100",
    "num_test": "10000",
    "wall_seconds": "71.25",
    "startup_seconds": "9.75",
    "step_seconds": "23.5",
    "images_per_second": "272.0",
    "device": "cpu",
    "num_devices": "1",
    "checkpoint_sha256": run_folders.SHA,
    "started": "2026-11-22T08:51:09+00:00",
    "warnings": "one | two, three",
  }
  assert {name: few[name] for name in expected} == expected
  assert few["rule"].startswith("resize 56 (rule: 160), crop 48")
  assert (full["shots"], full["rule"], full["regime"]) == ("full", "as the rule", "medium")
  assert (full["wall_seconds"], full["step_seconds"], full["checkpoint_sha256"]) == ("", "", "")


def test_a_run_that_went_on_elsewhere(tmp_path):
  environment = {"resumed": [{"device": "NVIDIA H200", "machine": "Linux x86_64, 16 cores"}]}
  found = run_folders.written(tmp_path, (run_folders.config(), 0.5, {"environment": environment}))
  header, row, _ = table.rows(found)
  named = dict(zip(header, row, strict=True))
  assert named["device"] == "cpu, then NVIDIA H200"
  assert named["machine"] == "Linux x86_64, 2 cores, then Linux x86_64, 16 cores"


def test_a_column_that_no_run_has_is_an_error(tmp_path, monkeypatch):
  found = run_folders.written(tmp_path, (run_folders.config(), 0.5))
  monkeypatch.setattr(table, "HEADER", (*table.HEADER, "renamed"))
  with pytest.raises(AttributeError, match="renamed"):
    list(table.rows(found))
