"""Tests of experiments.cost."""

import json

import pytest
import running

from bit_jax import commands
from experiments import cost, cost_tables, throughput

KNOWN = [throughput.Measured("R14x0.5", 48, 240.0), throughput.Measured("R14x0.5", 96, 50.0)]


@pytest.fixture
def run_folder(tmp_path):
  """Returns a function that writes what a check reads of a finished run."""

  def write(rate):
    folder = tmp_path / "run"
    folder.mkdir()
    environment = {"platform": "cpu", "machine": "Linux x86_64, 2 cores", "dtype": "float32"}
    for name, value in (
      ("config", {"model": "R14x0.5", "crop": 48, "batch_size": 64}),
      ("environment", environment),
      ("result", {"images_per_second": rate}),
    ):
      (folder / f"{name}.json").write_text(json.dumps(value))
    return folder

  return write


def test_a_run_is_held_against_its_prediction(run_folder):
  name, predicted, measured, ratio, basis = cost.check_run(KNOWN, run_folder(200.0))
  assert name == "run: R14x0.5 48 px batch 64"
  assert (predicted, measured, ratio) == ("240", "200", "1.20")
  assert basis == "measured, median of 1"


def test_a_run_that_was_not_timed(run_folder):
  assert cost.check_run(KNOWN, run_folder(None))[1:4] == ("240", "none", "")


def test_each_case_is_predicted_from_the_others():
  first, second = cost.check_benchmarks(KNOWN)
  flops = [throughput.training_flops("R14x0.5", size) for size in (48, 96)]
  assert first[4] == "FLOP/s of R14x0.5 at 96 pixels"
  assert float(first[3]) == pytest.approx(50 * flops[1] / flops[0] / 240, abs=0.005)
  assert float(second[3]) == pytest.approx(240 * flops[0] / flops[1] / 50, abs=0.005)


def test_the_committed_tables_are_those_that_would_be_written(tmp_path, monkeypatch, capsys):
  committed = cost._TABLE.read_text(encoding="utf-8")
  monkeypatch.setattr(cost, "_TABLE", tmp_path / "cost.md")
  assert commands.run(cost.main, ["cost"]) == 0
  written = (tmp_path / "cost.md").read_text(encoding="utf-8")
  assert written == committed, "python -m experiments.cost writes it anew"
  assert capsys.readouterr().out == committed


def test_checks_are_printed(run_folder, capsys):
  assert commands.run(cost.main, ["cost", "--check", str(run_folder(200.0))]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("| case | predicted images/s |")
  assert lines[2].startswith("| run: R14x0.5 48 px batch 64 | ")


def test_a_folder_without_a_run(tmp_path, capsys):
  assert commands.run(cost.main, ["cost", "--check", str(tmp_path)]) == commands.MISTAKE
  assert "holds no finished run" in capsys.readouterr().err


def test_the_readme_has_the_table_that_would_be_printed():
  table = "\n".join(cost_tables.summary(throughput.measurements()))
  assert f"\n\n{table}\n\n" in (running.ROOT / "README.md").read_text(encoding="utf-8")
