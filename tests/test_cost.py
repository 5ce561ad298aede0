"""Tests of experiments.cost."""

import json

import hypothesis
import pytest
import running
from hypothesis import strategies as st

from bit_jax import architectures, commands, experiment
from configs import cifar10
from experiments import cost, cost_tables, throughput


def test_flops_of_a_run_are_those_of_its_images():
  config, spec = experiment.resolve(cifar10.get_config("shots=10"))
  a = architectures.find("R50x1")
  image = architectures.forward_flops(a, 10, 128)
  trained, tested = 500 * 512, 5 * 10_000  # the rule's, and five evaluations
  assert cost.run_flops(config, spec) == pytest.approx((3 * trained + tested) * image)


def test_the_last_evaluation_counts_once():
  config, spec = experiment.resolve(cifar10.get_config("shots=10"))

  def flops(every):
    config.eval_every = every
    return cost.run_flops(config, spec)

  one = flops(250) - flops(500)
  assert one == pytest.approx(
    10_000 * architectures.forward_flops(architectures.find("R50x1"), 10, 128)
  )
  assert flops(500) == flops(10_000)  # it is always made
  assert flops(400) == flops(250)  # after 400 and 500; after 250 and 500


@hypothesis.given(steps=st.integers(1, 10**5), batch=st.integers(1, 4096))
def test_flops_grow_with_the_images(steps, batch):
  config, spec = experiment.resolve(cifar10.get_config("shots=10"))
  config.eval_every = config.total_steps = steps
  config.batch_size = batch
  before = cost.run_flops(config, spec)
  config.batch_size += 1
  assert cost.run_flops(config, spec) > before


def test_test_images_count_at_their_own_size():
  config, spec = experiment.resolve(cifar10.get_config("shots=10"))
  before = cost.run_flops(config, spec)
  config.test_size = 256
  grown = cost.run_flops(config, spec) - before
  a = architectures.find("R50x1")
  forward = [architectures.forward_flops(a, 10, size) for size in (128, 256)]
  assert grown == pytest.approx(5 * 10_000 * (forward[1] - forward[0]))


@pytest.mark.slow
def test_bytes_of_a_real_run_folder(tmp_path, tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    running.train(tmp_path / "run")
  held = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
  config, spec = experiment.resolve(running.config())
  assert cost.run_bytes(config, spec) == pytest.approx(held, rel=0.25)


def test_velocity_in_bfloat16_saves_a_sixth_of_the_numbers():
  config, spec = experiment.resolve(cifar10.get_config())
  full = cost.run_bytes(config, spec)
  config.momentum_dtype = "bfloat16"
  count = architectures.num_parameters(architectures.find("R50x1"), 10)
  assert full - cost.run_bytes(config, spec) == pytest.approx(2 * count)


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
