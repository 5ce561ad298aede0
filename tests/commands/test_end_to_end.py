"""The commands that users type, on real data and on files in the form of the released ones."""

import hashlib
import json

import numpy as np
import pytest
import running

from bit_jax.data import datasets, opening

pytestmark = pytest.mark.slow

TINY = {**running.FIELDS, "mixup_alpha": 0.0}


def command(config, folder, *flags, **changes):
  line = running.command("--workdir", str(folder), *flags, **{**TINY, **changes})
  line[3] = f"--config={config}"
  return line


def test_cifar10(tmp_path, tmp_path_factory, tfds_dir):
  line = command(
    "configs/cifar10.py:model=R14x0.5,shots=2,weights=none",
    tmp_path / "run",
    eval_every=6,
    eval_batch_size=500,
  )
  process = running.start(line, tmp_path_factory, TFDS_DATA_DIR=str(tfds_dir))
  status, out, err = running.finish(process)
  assert status == 0, err
  assert "Training on 20 images of 10 classes (cifar10 " in out
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert (result["num_test"], result["steps"]) == (10_000, 6)
  assert 0.05 < result["top1"] < 0.4
  record = json.loads((tmp_path / "run" / "fewshot.json").read_text())
  train = opening.open_set(datasets.Request("cifar10", data_dir=str(tfds_dir))).sources().train
  labels = train.read_labels()[record["indices"]]
  np.testing.assert_array_equal(np.bincount(labels), np.full(10, 2))
  assert len(set(record["indices"])) == 20
  names = (tmp_path / "run" / "classes.txt").read_text().split()
  assert names == list(train.class_names)
  assert names[0] == "airplane"


def test_a_released_file_by_its_path(tmp_path, tmp_path_factory, synth_npz):
  """The body is taken from the file, the head of 21,843 classes is replaced."""
  path = tmp_path / "BiT-M-R50x1.npz"
  before = synth_npz.checkpoint("BiT-M-R50x1")
  np.savez(path, **before)
  line = command(
    f"configs/quickstart.py:model=BiT-M-R50x1,shots=3,protocol=select,weights={path}",
    tmp_path / "run",
    total_steps=1,
    warmup_steps=1,
  )
  one_device = running.xla_flags(1)  # less to compile
  process = running.start(line, tmp_path_factory, XLA_FLAGS=one_device)
  status, _, err = running.finish(process)
  assert status == 0, err
  environment = json.loads((tmp_path / "run" / "environment.json").read_text())
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  assert (environment["weights"], environment["weights_sha256"]) == (str(path), digest)
  after = running.arrays(tmp_path / "run")
  assert after.keys() == before.keys()
  assert before["resnet/head/conv2d/kernel"].shape == (1, 1, 2048, 21843)
  for key, value in after.items():  # the one step is warm-up's first, at a rate of 0
    expected = np.zeros_like(value) if "/head/" in key else before[key]
    np.testing.assert_array_equal(value, expected, key)
