"""What earlier versions left: their run folders and names are found, resumed and reported."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import running
from absl import flags

from bit_jax import commands, experiment, trainer
from configs import npz
from experiments.results import collect

pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

RUNS = pathlib.Path(__file__).parent / "earlier_runs"
FIELDS = {
  "batch_size": 16,
  "resize": 40,
  "crop": 32,
  "total_steps": 40,
  "log_every": 5,
  "eval_every": 10,
  "checkpoint_every": 10,
  "eval_batch_size": 12,
  "mixup_alpha": 0.1,
  "momentum_dtype": "bfloat16",
  "base_lr": 0.02,
}

# The command line after --config=configs/, and the run folder of version 0.1.
NAMES = [
  ("quickstart.py", "quickstart-R14x0.5-5shot-s0-1467eef1"),
  (
    "quickstart.py:weights=none,shots=3,seed=4 --config.total_steps=7",
    "quickstart-R14x0.5-3shot-s4-799b1eb6",
  ),
  ("cifar10.py", "cifar10-BiT-M-R50x1-full-s0-e2222d79"),
  (
    "cifar10.py:model=BiT-M-R101x3,shots=5,seed=1,preset=readme_128",
    "cifar10-BiT-M-R101x3-5shot-s1-9d66fbed",
  ),
  (
    "cifar100.py:preset=paper,protocol=select --config.batch_size=256",
    "cifar100-BiT-M-R50x1-full-s0-eb2d938c",
  ),
  (
    "imagenet2012.py:shots=25,resolution=paper --config.keep_best=True --config.patience=3",
    "imagenet2012-BiT-M-R50x1-25shot-s0-356adfc3",
  ),
  ("vtab.py:task=svhn", "vtab-svhn-BiT-M-R50x1-full-s0-61ebe64f"),
  (
    "oxford_flowers102.py:model=BiT-M-R152x4,crop=False --config.dtype=bfloat16 "
    "--config.shuffle_window=1000",
    "oxford_flowers102-BiT-M-R152x4-full-s0-8a67e05c",
  ),
  (
    "cats_vs_dogs.py --config.min_side=100 --config.microbatch=16 --config.decay_steps=(5,6)",
    "cats_vs_dogs-BiT-M-R50x1-full-s0-7cf5b545",
  ),
  (
    "npz.py:model=R14x0.5,weights=none,seed=3,path=tests/earlier_runs/0.1/images.npz "
    "--config.log_every=3 --config.data_dir=/data",
    "npz-R14x0.5-full-s3-122cdd17",
  ),
]


@pytest.mark.parametrize(("line", "name"), NAMES, ids=[line for line, _ in NAMES])
def test_the_same_command_has_the_run_folder_that_version_0_1_gave_it(line, name, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  values = flags.FlagValues()
  argv = ["train", *f"--config=configs/{line}".split()]
  holder = commands.define_config(values, argv)
  commands.parse(values, argv)
  config, _ = experiment.resolve(holder.value)
  assert experiment.default_workdir(config) == f"runs/{name}"


@pytest.fixture
def earlier(tmp_path, monkeypatch):
  """A copy of what version 0.1 left, which is the current folder: `data_path` is relative to it."""
  folder = tmp_path / "0.1"
  shutil.copytree(RUNS / "0.1", folder)
  monkeypatch.chdir(folder)
  return folder


def run(folder):
  config = npz.get_config("model=R14x0.5,weights=none,seed=3,path=images.npz")
  config.update(FIELDS)
  return trainer.train_and_evaluate(config, str(folder))


def test_a_finished_run_of_version_0_1_gives_its_result(earlier):
  before = {p: p.read_bytes() for p in (earlier / "finished").iterdir()}
  assert run(earlier / "finished") == json.loads(before[earlier / "finished" / "result.json"])
  after = {p: p.read_bytes() for p in (earlier / "finished").iterdir() if p.name != ".lock"}
  assert after == before


@pytest.mark.slow
def test_a_stopped_run_of_version_0_1_goes_on_and_ends_like_the_undisturbed_one(earlier, capsys):
  result = run(earlier / "stopped")
  assert "Resuming after step 21.\n" in capsys.readouterr().out
  undisturbed = json.loads((earlier / "finished" / "result.json").read_text())
  for name in ("top1", "num_train", "num_test", "steps", "left_out", "warnings"):
    assert result[name] == undisturbed[name], name
  assert result["loss"] == pytest.approx(undisturbed["loss"], rel=0.02)
  logged = [(r["step"], r["kind"]) for r in running.rows(earlier / "stopped")]
  undisturbed = [(r["step"], r["kind"]) for r in running.rows(earlier / "finished")]
  assert sorted(logged) == sorted([*undisturbed, (21, "train")])  # the stop logs its step
  ours, theirs = running.arrays(earlier / "stopped"), running.arrays(earlier / "finished")
  assert ours.keys() == theirs.keys()
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, rtol=0, atol=1e-4, err_msg=key)


def test_runs_of_version_0_1_are_reported(earlier):
  found = collect.collect(earlier)
  assert [r.metrics["top1"] for r in found.runs] == [1.0]
  assert len(found.unfinished) == 1
