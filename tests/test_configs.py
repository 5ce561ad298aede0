"""Tests of the files in configs/, read as the command line reads them."""

import pathlib

import pytest
from absl import flags

from bit_jax import architectures, commands, errors, experiment
from configs import base

# ml_collections loads a config file in a way that Python calls deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

FOLDER = pathlib.Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")
DATA_NAMES = [n for n in NAMES if n != "base"]

# A text for each field that is left open, and what it must become.
PLACEHOLDERS = {
  "weights": ("none", "none"),
  "dataset": ("digits", "digits"),
  "data_path": ("~/a=b,c.npz", "~/a=b,c.npz"),
  "data_dir": ("/data", "/data"),
  "shots": ("5", 5),
  "resolution": ("paper", "paper"),
  "resize": ("80", 80),
  "crop": ("64", 64),
  "batch_size": ("128", 128),
  "total_steps": ("7", 7),
  "base_lr": ("0.5", 0.5),
  "warmup_steps": ("0", 0),
  "decay_steps": ("(3,5)", (3, 5)),
  "mixup_alpha": ("0.2", 0.2),
  "random_crop": ("false", False),
  "random_flip": ("true", True),
  "eval_every": ("3", 3),
  "checkpoint_every": ("4", 4),
  "log_every": ("1", 1),
}


def read(file, *overrides):
  values = flags.FlagValues()
  argv = ["train", f"--config={FOLDER}/{file}", *overrides]
  holder = commands.define_config(values, argv)
  commands.parse(values, argv)
  return holder.value


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_the_fields_of_base(name):
  config = read(f"{name}.py")
  expected = base.get_config()
  assert set(config.keys()) == set(expected.keys())
  for field in expected:
    assert config.get_type(field) is expected.get_type(field), field
  assert config.name == name
  architectures.find(config.model)


@pytest.mark.parametrize("name", [n for n in DATA_NAMES if n != "npz"])
def test_every_file_can_be_resolved(name):
  config, spec = experiment.resolve(read(f"{name}.py"))
  left_open = {k for k, v in config.items() if v is None}
  assert left_open <= {"data_path", "data_dir", "shots"}
  assert spec.name == config.dataset


def test_every_open_field_is_in_the_list():
  config = base.get_config()
  assert {k for k, v in config.items() if v is None} == set(PLACEHOLDERS)


@pytest.mark.parametrize("field", PLACEHOLDERS)
def test_a_placeholder_takes_its_type(field):
  text, value = PLACEHOLDERS[field]
  config = read("base.py", f"--config.{field}={text}")
  assert config[field] == value
  assert type(config[field]) is type(value)


def test_an_override_beats_the_file():
  assert read("quickstart.py").batch_size == 64
  assert read("quickstart.py", "--config.batch_size=8").batch_size == 8


@pytest.mark.parametrize("name", NAMES)
def test_arguments_set_their_fields(name):
  values = "model=BiT-M-R101x3,weights=none,preset=paper,resolution=code,protocol=select,shots=5"
  config = read(f"{name}.py:{values},seed=3")
  set_by_arguments = {"model", "preset", "resolution", "protocol", "shots", "seed"}
  assert {k: config[k] for k in set_by_arguments} == {
    "model": "BiT-M-R101x3",
    "preset": "paper",
    "resolution": "code",
    "protocol": "select",
    "shots": 5,
    "seed": 3,
  }
  assert config.weights == "none"


@pytest.mark.parametrize("path", ["~/a=b,c/x y.npz", "gs://bucket/x.npz", "a,shots=3"])
def test_a_path_may_hold_anything(path):
  config = read(f"npz.py:shots=2,path={path}")
  assert (config.data_path, config.shots, config.dataset) == (path, 2, "npz")


def test_only_npz_takes_a_path():
  with pytest.raises(errors.UserError, match="no config argument 'path'"):
    read("cifar10.py:path=x.npz")


def test_the_configs_hold_what_their_texts_say():
  c = read("pretrain_mini.py")
  assert (c.model, c.dataset, c.weights) == ("R14x0.5", "cifar100", "none")
  epochs = c.total_steps * c.batch_size / 50_000
  assert epochs == pytest.approx(12, abs=0.05)
  fractions = [s / c.total_steps for s in c.decay_steps]
  assert fractions == pytest.approx([1 / 3, 2 / 3, 8 / 9], abs=1e-3)
  c = read("quickstart.py")
  assert (c.model, c.dataset, c.shots) == ("R14x0.5", "digits", 5)
