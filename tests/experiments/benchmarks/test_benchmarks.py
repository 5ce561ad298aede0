"""Tests of the benchmarks; none asserts a time."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from experiments.benchmarks import (
  comparison,
  gpu,
  inference,
  inputs,
  jax_worker,
  load,
  machine,
  plain_flax,
  report,
  results,
  roofline,
  scaling,
  startup,
  train_step,
  workers,
)

ABSENT = (
  *("clu", "cv2", "h5py", "matplotlib", "ml_collections", "PIL", "psutil", "requests"),
  *("sklearn", "tensorboard", "tensorflow", "tensorflow_datasets", "timm", "torch", "tqdm"),
)  # from a machine with jax, flax and optax alone

WORKER = """
import sys, time
from experiments.benchmarks import workers

def build(spec):
  if spec.get("mistake"):
    raise ValueError(spec["mistake"])
  print("this goes to the standard error, not to the parent")
  log = open(spec["log"], "a", buffering=1)
  log.write(spec["name"] + " built\\n")

  def repeat():
    log.write(spec["name"] + "\\n")
    if spec.get("fails"):
      raise MemoryError("no room for it")
    return spec["items"]

  return workers.Workload(repeat, {"device": "fake"}, lambda: 7, lambda: [1.5, 2])

workers.serve(build)
"""


@pytest.fixture(autouse=True)
def _worker(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.mktemp("modules")
  (folder / "fake_worker.py").write_text(WORKER)
  monkeypatch.setenv("PYTHONPATH", str(folder))


def start(tmp_path, name, **spec):
  given = {"name": name, "log": str(tmp_path / "log"), **spec}
  return contextlib.closing(workers.Worker(given, "fake_worker"))


def test_workers_take_turns(tmp_path):
  with start(tmp_path, "ours", items=3) as ours, start(tmp_path, "theirs", items=5) as theirs:
    assert ours.info == {"device": "fake"}
    assert ours.ask("check") == [1.5, 2.0]
    figures = workers.alternate({"ours": ours, "theirs": theirs}, rounds=3)
  log = (tmp_path / "log").read_text().split("\n")
  built, turns = log[:2], log[2:-1]
  assert built == ["ours built", "theirs built"]
  assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
  assert {name: len(f.rates) for name, f in figures.items()} == {"ours": 3, "theirs": 3}
  assert figures["ours"].peak_memory == 7


def test_a_worker_ends_with_its_parent(tmp_path):
  source = WORKER.replace("def build(spec):", "def build(spec):\n  time.sleep(60)")
  spec = json.dumps({"name": "slow", "log": "log"})
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path}
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  with subprocess.Popen([sys.executable, "-c", source, spec], env=environment, **pipes) as worker:
    worker.stdin.close()
    assert worker.wait(timeout=30) == 1


def test_medians():
  figures = workers.Figures((4.0, 8.0, 1.0), 30)
  assert (figures.rate, figures.seconds) == (4.0, 0.25)


def test_a_case_that_cannot_be_compared_does_not_end_the_others(monkeypatch, tmp_path, capsys):
  def compare(case, *_):
    if case.batch == 2:
      raise workers.WorkerError("theirs and ours compute different results")
    yield results.Row(str(case), "training", "images/s", 1.0)

  monkeypatch.setattr(comparison, "compare", compare)
  options = ["--device=cpu", f"--out={tmp_path / 'results.jsonl'}"]
  cases = ["--cases", "R50x1@32x2", "R50x1@32x4"]
  comparison.main("train_step", "", {"cpu": ()}, [*cases, *options])
  printed = capsys.readouterr().out
  assert "none  " in printed
  assert "not measured: theirs and ours compute different results" in printed
  assert "R50x1 32 px batch 4" in printed


def test_a_machine_that_slows_down_slows_down_both():
  ours, theirs = workers.Figures((10, 8, 2), 0), workers.Figures((5, 4, 4), 0)
  row = results.rates("", "", ours, "peer", theirs, {"MFU": 0.5})
  assert (row.ours, row.theirs, row.ratio) == (8, 4, 2)
  assert row.more == {"rounds": "0.50 to 2.00", "MFU": 0.5}
  assert dataclasses.replace(row, paired=1.5).ratio == 1.5
  assert dataclasses.replace(row, paired=None, theirs=2).ratio == 4


def test_why_a_worker_is_missing(tmp_path):
  with pytest.raises(workers.WorkerError, match="nowhere/python"):
    workers.Worker({}, python="nowhere/python")
  with pytest.raises(workers.WorkerError, match="ValueError: not installed"):
    start(tmp_path, "theirs", mistake="not installed")
  with (
    start(tmp_path, "theirs", fails=True) as worker,
    pytest.raises(workers.WorkerError, match="no room for it"),
  ):
    worker.ask("repeat")


def test_as_many_steps_as_fill_the_time(monkeypatch):
  clock = iter([10.0, 10.4])
  monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
  waited = []
  repeat = workers.repetition(lambda: 7, waited.append, 5, 1.0)
  assert repeat() == 15  # three steps of five items
  assert waited == [7, 7]


def test_rows_are_printed_and_recorded(tmp_path, capsys):
  path = tmp_path / "results.jsonl"
  row = results.Row(
    "R50x1", "training", "images/s", 18.04, "PyTorch", 16.4, more={"MFU": 0.4567, "form": "eager"}
  )
  missing = results.Row("R50x1", "training", "images/s", 1234.5, "Flax", None, note="no room")
  for _ in range(2):
    results.record("train_step", [row, missing], path, {"torch": "2"})
  header, on, _, first, second = capsys.readouterr().out.splitlines()[:5]
  assert header.startswith("train_step, 20")
  assert machine.describe() in on
  assert "torch 2" in on
  assert " ".join(first.split()) == (
    "R50x1 training 18 images/s PyTorch 16.4 images/s 1.10 MFU 0.457; form eager"
  )
  assert " ".join(second.split()) == "R50x1 training 1,234 images/s Flax none no room"
  records = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(records) == 4
  assert records[0]["ratio"] == pytest.approx(1.1)
  assert records[1]["ratio"] is None
  assert records[0]["versions"]["torch"] == "2"
  assert set(records[0]["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax"}


def test_a_report_holds_the_newest_of_each(tmp_path):
  path = tmp_path / "results.jsonl"
  for ours in (1.0, 2.0):
    rows = [results.Row("R50x1", "time", "s", ours, "numpy.load", 4.0)]
    results.record("load", [*rows, results.Row("R50x1", "peak memory", "GB", ours / 10)], path)
  lines = path.read_text().splitlines()
  text = report.render(report.newest(lines))
  assert text.count("### load") == 1
  assert [line for line in text.splitlines() if line.startswith("| R50x1")] == [
    "| R50x1 | time | 2 s | numpy.load | 4 s | 0.50 |  |",
    "| R50x1 | peak memory | 0.2 GB |  | none |  |  |",
  ]


def test_memory_of_a_process():
  block = b"x" * 50_000_000
  assert machine.held_memory() > len(block)
  assert machine.peak_memory() >= machine.held_memory()


def test_nothing_but_jax_flax_and_optax():
  source = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
from experiments.benchmarks import gpu, inference, jax_worker, roofline, train_step
"""
  done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


SMALL = architectures.Architecture("R5x0.5", (1, 1, 0, 0), 0.5)


@pytest.mark.slow
def test_the_plain_port_computes_the_same():
  shapes = architectures.parameter_shapes(SMALL, inputs.NUM_CLASSES)
  arrays = {name: synthetic.array(name, shape) for name, shape in shapes.items()}
  images, labels = jnp.asarray(synthetic.images(0, 2, 20)), jnp.asarray(inputs.labels(2))
  given = jax_worker.Problem(SMALL, arrays, jnp.dtype("float32"), images, labels)
  ours, plain = (make(given) for make in (jax_worker.our_inference, jax_worker.plain_inference))
  assert ours()[0].shape == (2, inputs.NUM_CLASSES)
  np.testing.assert_allclose(ours()[0], plain()[0], rtol=2e-5, atol=2e-5)
  ours, plain = (make(given) for make in (jax_worker.our_training, jax_worker.plain_training))
  losses = np.array([[step()[0].mean() for _ in range(3)] for step in (ours, plain)])
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


def test_operations_counted_by_hand():
  expected = 32**2 * 49 * 3 * 64  # the stem at 64 pixels, then the pool: 16
  expected += 16**2 * (64 * 256 + 64 * 64 + 9 * 64 * 64 + 64 * 256)
  expected += 16**2 * 256 * 128 + 8**2 * (256 * 512 + 9 * 128 * 128 + 128 * 512)
  expected += 8**2 * 512 * 256 + 4**2 * (512 * 1024 + 9 * 256 * 256 + 256 * 1024)
  expected += 4**2 * 1024 * 512 + 2**2 * (1024 * 2048 + 9 * 512 * 512 + 512 * 2048)
  expected += 2048 * 10
  assert architectures.forward_flops(architectures.find("R14x1"), 10, 64) == 2 * expected
  case = comparison.Case("R14x1", 64, 5)
  assert comparison.training_flops(case) == 6 * expected


@pytest.mark.parametrize("size", [224, 225])
def test_operations_counted_by_the_compiler(size):
  model = resnet_v2.create("R14x1", 10)
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  counted = jax.jit(model.apply).lower(variables, images).cost_analysis()["flops"]
  ours = architectures.forward_flops(architectures.find("R14x1"), 10, size)
  assert ours == pytest.approx(counted, rel=0.05)  # it leaves out padding, and counts norms


def test_known_counts():
  """4.1 billion multiply-adds, as published for ResNet-50 with the stride on its 3x3."""
  assert architectures.forward_flops(architectures.find("R50x1"), 1000, 224) / 2e9 == pytest.approx(
    4.1, abs=0.05
  )


def test_roofline_of_one_unit_by_hand():
  """The only unit of R14x1's first block at 64 pixels: 16 x 16 places, 64 channels in, 256 out."""
  parts = roofline.operations(architectures.find("R14x1"), 64, 1, training=True)
  moved = {o.name: o.bytes for o in parts if "block1/" in o.name}
  thin, wide = 2 * 16**2 * 64, 2 * 16**2 * 256  # bytes of a tensor in bfloat16
  kernel = "block1/unit01/{}/standardized_conv2d/kernel".format
  for part, sum_of_ends in (("a/proj", thin + wide), ("a", 2 * thin), ("c", thin + wide)):
    for operation in ("forward", "kernel gradient", "input gradient"):
      assert moved[f"{kernel(part)} {operation}"] == sum_of_ends
  assert moved[f"around {kernel('a/proj')}"] == thin  # its gradient joins that of a
  assert moved[f"around {kernel('a')}"] == 2 * thin + 5 * thin  # statistics came with the pool
  assert moved[f"around {kernel('b')}"] == 3 * thin + 5 * thin
  assert moved[f"around {kernel('c')}"] == 3 * thin + 5 * thin + 3 * wide  # and the sum


def test_roofline_of_the_stem_and_the_end_by_hand():
  parts = roofline.operations(architectures.find("R14x1"), 64, 4, training=True)
  moved = {o.name: o.bytes for o in parts}
  stem = 2 * 32**2 * 64
  assert moved["around root_block/standardized_conv2d/kernel"] == 3 * stem + 2 * stem / 4
  assert "root_block/standardized_conv2d/kernel input gradient" not in moved
  assert moved["last norm"] == 4 * 2 * 2**2 * 2048
  count = architectures.num_parameters(architectures.find("R14x1"), 10)
  assert moved["parameters"] == 50 * count / 4


def test_a_roofline_has_two_limits():
  a = architectures.find("R50x1")
  flops = architectures.forward_flops(a, 10, 128) - 2 * 2048 * 10  # the head isn't among them
  computes = roofline.Accelerator(1e12, 1e30, "")
  assert roofline.images_per_second(computes, a, 128, 8, training=False) == pytest.approx(
    1e12 / flops
  )
  moves = roofline.Accelerator(1e30, 1e12, "")
  parts = list(roofline.operations(a, 128, 8, training=True))
  assert roofline.images_per_second(moves, a, 128, 8, training=True) == pytest.approx(
    1e12 / sum(o.bytes for o in parts)
  )
  both = roofline.ACCELERATORS["H200"]
  assert roofline.find("NVIDIA H200") is both
  assert roofline.find("NVIDIA T4") is None


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
  comparison.main("inference", "", inference.CASES, options)
  torch, flax = (
    [json.loads(line) for line in path.read_text().splitlines()[i : i + 2]] for i in (0, 2)
  )
  assert [r["quantity"] for r in flax][1] == "peak memory"
  assert all(r["peer"] == "plain Flax" and r["ratio"] > 0 for r in flax)
  assert 0 < flax[0]["more"]["MFU"] < 1
  assert all(r["theirs"] is None and f"{tmp_path}/python" in r["note"] for r in torch)
  assert "not measured" in capsys.readouterr().out


def test_a_plan_stops_in_time():
  python = [sys.executable, "-c"]
  assert gpu.run([*python, "print('done')", "x"], 100) == "done\n"
  assert "skipped, 12 s are left" in gpu.run([*python, "print('done')", "x"], 12)
  assert all(comparison.Case.parse(case) for _, case in gpu.PLAN)


def test_limits_of_a_card(monkeypatch):
  case = comparison.Case("R50x1", 128, 512)
  monkeypatch.setattr(machine, "accelerators", lambda: ("NVIDIA H200",))
  limits = comparison._limits(case, "training", "gpu", 1e12)
  assert limits["MFU"] == pytest.approx(989e12 / comparison.training_flops(case))
  assert limits["of roofline"] < limits["MFU"]
  assert comparison._limits(case, "inference", "cpu", 2e12) == {
    "MFU": pytest.approx(2e12 / comparison.inference_flops(case))
  }
  assert gpu.roofline_here().startswith("Roofline of NVIDIA H200 (NVIDIA H200 data sheet, SXM)")


def test_loading_side_by_side(tmp_path):
  architecture = architectures.find("R14x0.5")
  time, hashing, memory = load.compare(architecture, 2, tmp_path)
  size = 4 * architectures.num_parameters(architecture, 21843)
  assert time.configuration == f"R14x0.5, {size / 1e9:.2f} GB"
  assert (time.peer, time.quantity, time.unit) == ("numpy.load", "time", "s")
  assert time.ratio > 0
  assert hashing.theirs == time.theirs
  assert list((tmp_path / "sha256").iterdir())  # not among the user's own
  for figure in (memory.ours, memory.theirs):
    assert 0.9 * size < 1e9 * figure < 3 * size
  assert memory.more["of its size"] == pytest.approx(1e9 * memory.ours / size)


def test_no_room_for_a_checkpoint(tmp_path, monkeypatch):
  monkeypatch.setattr(load.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 5))
  (row,) = load.compare(architectures.find("R14x0.5"), 1, tmp_path)
  assert row.ours is None
  assert "GB free; use --folder" in row.note
  assert not list(tmp_path.iterdir())


def test_a_straight_line_and_the_distance_from_it():
  line = scaling.fit([1, 2, 4], [3.0, 5.0, 9.0])
  assert (line.intercept, line.slope) == (pytest.approx(1), pytest.approx(2))
  assert line.deviation == pytest.approx(0, abs=1e-12)
  bent = scaling.fit([1, 2, 3], [1.0, 2.6, 3.0])  # on 0.2 + x: 1.2, 2.2, 3.2
  assert (bent.intercept, bent.slope) == (pytest.approx(0.2), pytest.approx(1))
  assert bent.deviation == pytest.approx(0.4 / 2.2)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "values"), [(2, (1, 2)), (3, (2, 4))])
def test_costs_along_an_axis(index, values):
  axis = scaling.AXES[index]
  spec = {**axis.spec, "batch": 2, "size": 16}
  axis = dataclasses.replace(axis, values=values, spec=spec)
  *points, straightness = scaling.compare(axis, "R14x0.5", rounds=1, seconds=0)
  assert [p.peer for p in points] == ["the straight line"] * 2
  assert all(p.ours > 0 and p.ratio == pytest.approx(1) for p in points)  # two points make a line
  assert straightness.ours == pytest.approx(0, abs=1e-6)


def test_a_set_for_the_first_steps(tmp_path):
  startup.write_images(tmp_path / "images.npz")
  train, test = arrays.load_npz(str(tmp_path / "images.npz"))
  assert train.images.shape == (64, 128, 128, 3)
  assert (len(test), len(train.class_names)) == (16, inputs.NUM_CLASSES)


def test_lines_of_steps():
  lines = [
    "step 1/4  loss 2.30  top-1 10.0%  (compiled)",
    "step 4: evaluated 16 images",
    "step 1/40",
  ]
  assert [bool(startup.STEP_LINE.match(line)) for line in lines] == [True, False, False]


def test_imports_are_timed_by_module():
  assert set(startup.import_seconds(("json", "csv"), 1)) == {"json", "csv"}
  with pytest.raises(subprocess.CalledProcessError):
    startup.import_seconds(("no_such_module",), 1)


def test_the_readme_has_the_roofline_and_the_recorded_figures():
  text = (pathlib.Path(roofline.__file__).parent / "README.md").read_text()
  assert roofline.table(roofline.ACCELERATORS["H200"]) in text
  recorded = results.PATH.read_text().splitlines()
  assert report.render(report.newest(recorded)) in text
