"""The 19 tasks of VTAB-1k from prepared sets to a trained step, on generated examples."""

import json
import subprocess
import sys

import generated_tfds
import jax
import numpy as np
import pytest
import resolving
import running

from bit_jax.configs import vtab as vtab_config
from bit_jax.data import pipeline, resizing, vtab
from bit_jax.models import architectures
from bit_jax.runs import results
from bit_jax.training import fine_tuning

pytestmark = pytest.mark.slow

FIELDS = {
  "resize": 40,
  "crop": 32,
  "batch_size": 8,
  "total_steps": 1,
  "eval_batch_size": 16,
}


@pytest.fixture(scope="module", autouse=True)
def _quick_runs(tmp_path_factory):
  """Runs draw nothing, train no blocks and are compiled in a hurry: most tasks compile anew."""
  shallow = architectures.Architecture("R14x0.5", (0, 0, 0, 0), 0.5)
  with running.compilation_cache(tmp_path_factory), pytest.MonkeyPatch.context() as patch:
    patch.setitem(architectures.ARCHITECTURES, "R14x0.5", shallow)
    for name in ("draw_augmented", "draw"):
      patch.setattr(results, name, lambda *_: None)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def builders():
  from bit_jax.data.sources import tfds_builders as module

  return module


@pytest.fixture(scope="module")
def data_dir(builders, tmp_path_factory):
  folder = tmp_path_factory.mktemp("generated")
  for tfds_name in {vtab.find(task).tfds_name for task in vtab.TASKS}:
    generated_tfds.prepare(tfds_name, folder)
  return folder


def configured(name, protocol, data_dir):
  config = vtab_config.get_config(f"task={name},protocol={protocol},model=R14x0.5,weights=none")
  config.update({**FIELDS, "data_dir": str(data_dir)})
  return config


def bin_of(value, thresholds):
  return sum(value > t for t in thresholds)


def expected_label(task, example):
  """Returns the label of an example's features as the code of VTAB has it."""
  name = task.name
  if name == "clevr-count":
    return len(example["objects"]) - 3
  if name == "clevr-distance":
    depths = [item["pixel_coords"][2] for item in example["objects"]]
    return bin_of(min(depths), (8, 8.5, 9, 9.5, 10))
  if name == "kitti-distance":
    depths = [item["location"][2] for item in example["objects"] if item["type"] in (0, 1, 2)]
    return bin_of(min(depths), (8, 20)) if depths else 3
  if name == "dsprites-xpos":
    return example["label_x_position"] // 2
  if name == "dsprites-orientation":
    return example["label_orientation"] * 16 // 40
  stored = {"smallnorb-azimuth": "label_azimuth", "smallnorb-elevation": "label_elevation"}
  return example[stored.get(name, "label")]


def assert_part(part, task, expression, builders, data_dir):
  """Compares a part with its examples as they were generated, in the order of the expression."""
  builder = builders.find_current(task.tfds_name, str(data_dir))
  places = generated_tfds.positions(task.tfds_name, expression)
  raw = [generated_tfds.example(builder, task.tfds_name, *place) for place in places]
  labels = [expected_label(task, example) for example in raw]
  assert part.labels.tolist() == labels
  assert len(part) == len(places)
  images = part.examples.images
  assert images.dtype == np.uint8
  lossless = builder.info.features["image"].encoding_format != "jpeg"
  for image, example in list(zip(images, raw, strict=True))[:: 1 if lossless else 10]:
    pixels = np.array(example["image"])
    if pixels.shape[2] == 1:
      pixels = np.repeat(pixels, 3, axis=2) * (255 if task.tfds_name == "dsprites" else 1)
    if part.size is not None:
      pixels = resizing.resize(pixels, part.size)
    assert image.shape == pixels.shape
    assert np.abs(image.astype(int) - pixels).max() <= (0 if lossless else 8)
  return labels, images


@pytest.mark.parametrize("name", vtab.TASKS)
def test_final_trains_on_1000_and_scores_the_test_set(
  name, builders, data_dir, tmp_path, monkeypatch
):
  task, loaded, load = vtab.find(name), [], pipeline.load
  monkeypatch.setattr(pipeline, "load", lambda *a: loaded.append(load(*a)) or loaded[-1])
  result = fine_tuning.train_and_evaluate(
    configured(name, "final", data_dir), str(tmp_path / "run")
  )
  (data,) = loaded
  labels, images = assert_part(data.train, task, task.splits.train800val200, builders, data_dir)
  tests, _ = assert_part(data.test, task, task.splits.test, builders, data_dir)
  assert len(labels) == result["num_train"] == 1_000
  assert len(tests) == result["num_test"] < 500
  if task.num_classes < 50:
    assert set(labels) == set(range(task.num_classes))  # every class is met
  if task.name.startswith(("dsprites", "smallnorb")):
    assert np.all(images == images[..., :1])
  if task.name.startswith("dsprites"):
    assert {images.min(), images.max()} == {0, 255}
  assert result["steps"] == 1
  (row,) = running.rows(tmp_path / "run", "train")
  assert row["loss"] == pytest.approx(np.log(task.num_classes), abs=1e-5)  # of a head of zeros
  (warning,) = data.warnings
  assert f"{task.num_test:,} were expected" in warning
  assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


@pytest.mark.parametrize("name", vtab.TASKS)
def test_select_trains_on_800_and_scores_200(name, builders, data_dir):
  task = vtab.find(name)
  data = resolving.load(configured(name, "select", data_dir))
  assert_part(data.train, task, task.splits.train800, builders, data_dir)
  assert_part(data.test, task, task.splits.val200, builders, data_dir)
  assert (len(data.train), len(data.test)) == (800, 200)
  assert data.warnings == []


@pytest.mark.parametrize("name", ["svhn", "dsprites-orientation", "kitti-distance", "dtd"])
def test_a_task_is_streamed_as_it_is_resident(name, data_dir):
  config = configured(name, "select", data_dir)
  resident, streamed = (resolving.load(config, memory) for memory in (1e12, 0))
  assert streamed.train.examples is None
  indices = np.random.default_rng(0).permutation(800)[:100]
  images, labels = streamed.train.some(indices)
  np.testing.assert_array_equal(images, resident.train.examples.images[indices])
  np.testing.assert_array_equal(labels, resident.train.labels[indices])


def test_dry_run_needs_no_data(tmp_path):
  command = [
    *(sys.executable, "-m", "bit_jax.train", "--config=configs/vtab.py:task=dsprites-xpos"),
    *(f"--config.data_dir={tmp_path / 'none'}", "--dry_run"),
  ]
  done = subprocess.run(command, cwd=running.ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "vtab/dsprites-xpos" in done.stdout
  assert not (tmp_path / "none").exists()
