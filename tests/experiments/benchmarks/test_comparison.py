"""Tests of the comparisons of networks: experiments.benchmarks.comparison, its workers, and gpu."""

import argparse
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

from bit_jax.models import architectures
from bit_jax.runtime import errors
from experiments.benchmarks import (
  comparison,
  gpu,
  inference,
  inputs,
  jax_worker,
  machine,
  plain_flax,
  results,
  train_step,
  workers,
)

ABSENT = (
  *("clu", "cv2", "h5py", "matplotlib", "ml_collections", "PIL", "psutil", "requests"),
  *("sklearn", "tensorboard", "tensorflow", "tensorflow_datasets", "timm", "torch", "tqdm"),
)  # from a machine with only jax, flax and optax


SMALL = architectures.Architecture("R5x0.5", (1, 1, 0, 0), 0.5)


def test_nothing_but_jax_flax_and_optax():
  source = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
from experiments.benchmarks import gpu, inference, jax_worker, roofline, train_step
"""
  done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_a_case_that_cannot_be_compared_does_not_end_the_others(monkeypatch, tmp_path, capsys):
  def compare(case, *_):
    if case.batch == 2:
      raise workers.WorkerError("theirs and ours compute different results")
    yield results.Row(str(case), "training", "images/s", 1.0)

  monkeypatch.setattr(comparison, "compare", compare)
  options = ["--device=cpu", f"--out={tmp_path / 'results.jsonl'}"]
  cases = ["--cases", "R50x1@32x2", "R50x1@32x4"]
  comparison.main("train_step", "", {"cpu": ()}, ["", *cases, *options])
  printed = capsys.readouterr().out
  assert "none  " in printed
  assert "not measured: theirs and ours compute different results" in printed
  assert "R50x1 32 px batch 4" in printed


@pytest.mark.slow
def test_the_plain_port_computes_the_same():
  shapes = architectures.parameter_shapes(SMALL, inputs.NUM_CLASSES)
  arrays = {name: synthetic.array(name, shape) for name, shape in shapes.items()}
  images, labels = jnp.asarray(synthetic.images(0, 2, 20)), jnp.asarray(inputs.labels(2))

  def both(training):
    for implementation in (jax_worker.ours, jax_worker.plain):
      problem = jax_worker.Problem(SMALL, arrays, jnp.dtype("float32"), training)
      yield jax_worker.step_of(implementation(problem), images, labels, training=training)

  ours, plain = both(training=False)
  assert ours().shape == (2, inputs.NUM_CLASSES)
  np.testing.assert_allclose(ours(), plain(), rtol=2e-5, atol=2e-5)
  ours, plain = both(training=True)
  losses = np.array([[ours()["loss"].mean() for _ in range(3)], [plain() for _ in range(3)]])
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
  assert np.all(np.diff(losses[0]) < 0)


def test_all_parameters_of_the_plain_port_are_given():
  architecture = architectures.find("R50x1")
  arrays = {
    name: np.empty(shape, np.float32)
    for name, shape in architectures.parameter_shapes(architecture, 10).items()
  }
  network = plain_flax.ResNet(architecture.depths, architecture.stem_channels, 10)
  own = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  given = plain_flax.from_checkpoint(arrays)
  assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, given)


def test_checkpoints_are_written_as_released(tmp_path):
  path = tmp_path / "checkpoint.npz"
  architecture = architectures.find("R14x0.5")
  inputs.write_checkpoint(path, architecture, 7)
  with np.load(path) as file:
    assert all(name.startswith("resnet/") for name in file.files)
  shapes = {name: array.shape for name, array in inputs.read_checkpoint(path).items()}
  assert shapes == architectures.parameter_shapes(architecture, 7)


def test_what_must_agree():
  logits = np.arange(6.0).reshape(3, 2)
  assert inputs.compared([logits]) == [0, 1, 2, 3]
  assert inputs.compared([np.array([1.0, 2.0, 6.0]), np.array(5.0)]) == [3, 5]
  comparison.agree({"ours": [3.0, 4.0], "theirs": [3.0, 4.004]}, 1e-3)
  with pytest.raises(workers.WorkerError, match=r"theirs and ours .* 0\.2"):
    comparison.agree({"ours": [3.0, 4.0], "theirs": [3.0, 5.0]}, 1e-3)
  with pytest.raises(workers.WorkerError, match="nan"):
    comparison.agree({"ours": [3.0, 4.0], "theirs": [3.0, float("nan")]}, 1e-3)


def test_cases():
  assert comparison.Case.parse("R50x1@128x16") == comparison.Case("R50x1", 128, 16)
  for text in ("R50x1", "R50x9@128x16", "R50x1@128"):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a case such as"):
      comparison.Case.parse(text)
  for module in (train_step, inference):
    assert all(comparison.Case.parse(t) for texts in module.CASES.values() for t in texts)


@pytest.mark.slow
def test_implementations_side_by_side(tmp_path, capsys):
  path = tmp_path / "results.jsonl"
  options = ["--cases=R14x0.5@32x2", "--rounds=2", "--seconds=0", "--device=cpu"]
  options += [f"--out={path}", f"--torch_python={tmp_path}/python"]
  comparison.main("inference", "", inference.CASES, ["", *options])
  torch, flax = (
    [json.loads(line) for line in path.read_text().splitlines()[i : i + 2]] for i in (0, 2)
  )
  assert [r["quantity"] for r in flax][1] == "peak memory"
  assert all(r["peer"] == "plain Flax" and r["ratio"] > 0 for r in flax)
  assert 0 < flax[0]["more"]["MFU"] < 1
  assert all(r["theirs"] is None and f"{tmp_path}/python" in r["note"] for r in torch)
  assert "not measured" in capsys.readouterr().out


def test_a_plan_stops_in_time(capfd, monkeypatch):
  python = [sys.executable, "-c"]
  gpu.run([*python, "print('done')", "x"], 100)
  gpu.run([*python, "print('done')", "x"], 12)
  monkeypatch.setattr(gpu, "_LEAST", 0)
  gpu.run([*python, "import time; time.sleep(60)", "x"], 0.1)
  done, skipped, stopped = capfd.readouterr().out.splitlines()
  assert done == "done"
  assert "skipped, 12 s are left" in skipped
  assert "stopped at the time limit" in stopped
  assert all(comparison.Case.parse(case) for _, case in gpu.PLAN)


def test_the_plan_writes_tables(monkeypatch, tmp_path, capsys):
  def run(command, seconds):
    out = command[command.index("--device=gpu") + 2].removeprefix("--out=")
    results.record("load", [results.Row("R50x1", "time", "s", 1.0)], pathlib.Path(out))

  monkeypatch.setattr(gpu, "run", run)
  monkeypatch.setattr(machine, "accelerators", tuple)
  with pytest.raises(errors.UserError, match="nvidia-smi lists no GPU"):
    gpu.main(["", "--out", str(tmp_path / "new")])
  monkeypatch.setattr(machine, "accelerators", lambda: ("NVIDIA H100 80GB HBM3",))
  gpu.main(["", "--out", str(tmp_path / "new")])
  assert "| R50x1 | time | 1 s |" in (tmp_path / "new/tables.txt").read_text()


@pytest.mark.parametrize(
  ("device", "printed", "dtype"),
  [
    ("gpu", "9.0\n7.5", "float32"),
    ("gpu", "10.0\n[N/A]\n9.0", "bfloat16"),
    ("cpu", "9.0", "float32"),
  ],
)
def test_a_card_is_measured_in_the_dtype_of_its_runs(device, printed, dtype, monkeypatch):
  monkeypatch.setattr(machine, "_output", lambda *_: printed)
  assert comparison._dtype(device) == dtype


def test_limits_of_a_card(monkeypatch):
  case = comparison.Case("R50x1", 128, 512)
  monkeypatch.setattr(machine, "accelerators", lambda: ("NVIDIA H200",))
  limits = comparison.limits_of(case, "training", "gpu", 1e12)
  assert limits["MFU"] == pytest.approx(989e12 / case.flops("training"))
  assert limits["of roofline"] < limits["MFU"]
  assert comparison.limits_of(case, "inference", "cpu", 2e12) == {
    "MFU": pytest.approx(2e12 / case.flops("inference"))
  }
  assert gpu.roofline_here().startswith("Roofline (NVIDIA H200 data sheet, SXM)")
