"""Tests of the files in configs/, read as the command line reads them."""

import json
import pathlib

import pytest
import resolving
from absl import flags

from bit_jax import run_config
from bit_jax.configs import base
from bit_jax.data import datasets, vtab
from bit_jax.models import architectures
from bit_jax.runs import description
from bit_jax.runtime import config_flags, errors
from bit_jax.training import optimizer

FOLDER = pathlib.Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")
DATA_NAMES = [n for n in NAMES if n != "base"]
REQUIRED = {"vtab": "task=svhn"}  # arguments without which a file has no config

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
  "test_size": ("96", 96),
  "batch_size": ("128", 128),
  "total_steps": ("7", 7),
  "base_lr": ("0.5", 0.5),
  "warmup_steps": ("0", 0),
  "decay_steps": ("(3,5)", (3, 5)),
  "mixup_alpha": ("0.2", 0.2),
  "random_crop": ("false", False),
  "random_flip": ("true", True),
  "patience": ("2", 2),
  "eval_every": ("3", 3),
  "checkpoint_every": ("4", 4),
  "log_every": ("1", 1),
}


def read(file, *overrides):
  values = flags.FlagValues()
  argv = ["train", f"--config={FOLDER}/{file}", *overrides]
  return config_flags.parse(values, argv)


def file_of(name, arguments=""):
  """Returns a config file with the arguments, and those it can't do without."""
  values = ",".join(filter(None, (REQUIRED.get(name), arguments)))
  return f"{name}.py:{values}" if values else f"{name}.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_has_the_fields_of_base(name):
  config = read(file_of(name))
  expected = base.get_config()
  assert set(config.keys()) == set(expected.keys())
  for field in expected:
    assert config.get_type(field) is expected.get_type(field), field
  assert config.name == (f"{name}-svhn" if name == "vtab" else name)
  architectures.find(config.model)


@pytest.mark.parametrize("name", sorted({*DATA_NAMES} - {"npz", "folder"}))
def test_every_file_can_be_resolved(name):
  config, spec = resolving.resolve(read(file_of(name)))
  left_open = {k for k, v in config.to_dict().items() if v is None}
  assert left_open <= {"data_path", "data_dir", "shots", "patience"}
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


# Texts that are a value of few fields. JSON, which a run's config is written in, has no infinity.
ANY_TEXTS = (
  *("", " ", "0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "9223372036854775808", "9" * 30),
  *("()", "(1,", "(1,a)", "('a',)", "(2,1)", "(-1,)", "(1.5,)", "(nan,)", "((1,),)", "[1,2]", "{}"),
  *("maybe", "None", "True", "a b", "a/b", "'", "\\", "\N{CAT FACE}", "(1e400,)", "1_000"),
)


@pytest.mark.parametrize("field", list(base.get_config()))
def test_every_text_is_a_value_of_a_field_or_ends_in_a_sentence(field):
  refused = []
  for text in ANY_TEXTS:
    try:
      config, spec = resolving.resolve(read("cifar10.py", f"--config.{field}={text}"))
    except errors.UserError as e:
      refused.append(str(e))
      continue
    json.dumps(config.to_dict(), allow_nan=False)
    assert run_config.default_workdir(config)
    assert description.rule(config, spec, 4)
    optimizer.learning_rates(config.base_lr, config.warmup_steps, config.decay_steps, 1)
  assert not [sentence for sentence in refused if "\n" in sentence or not sentence]
  free = ("data_dir", "reason", "weights")  # which take any text
  assert bool(refused) == (field not in free)


def test_an_override_beats_the_file():
  assert read("quickstart.py").batch_size == 64
  assert read("quickstart.py", "--config.batch_size=8").batch_size == 8


@pytest.mark.parametrize("name", NAMES)
def test_arguments_set_their_fields(name):
  values = "model=BiT-M-R101x3,weights=none,preset=paper,resolution=code,protocol=select,shots=5"
  config = read(file_of(name, f"{values},seed=3"))
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
  with pytest.raises(errors.UserError, match="Unknown config argument 'path'"):
    read("cifar10.py:path=x.npz")


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("task", vtab.TASKS)
def test_every_vtab_task_can_be_resolved(task, protocol):
  config, spec = resolving.resolve(read(f"vtab.py:task={task},protocol={protocol}"))
  assert (config.name, config.dataset, spec.name) == (
    f"vtab-{task}",
    f"vtab/{task}",
    f"vtab/{task}",
  )
  assert spec.num_train == (1_000 if protocol == "final" else 800)
  described = vtab.find(task)
  assert config.random_crop is described.crop_safe
  assert config.random_flip is described.flip_safe
  low = described.image_size[0] < 96
  assert (config.resize, config.crop) == ((160, 128) if low else (448, 384))
  assert (config.total_steps, config.mixup_alpha) == (500, 0)


def test_vtab_takes_the_codes_resolution_where_it_is_asked_to():
  config, _ = resolving.resolve(read("vtab.py:task=dtd,resolution=code"))
  assert (config.resolution, config.resize, config.crop) == ("code", 512, 480)
  config, _ = resolving.resolve(read("vtab.py:task=dtd,preset=code"))
  assert (config.resolution, config.warmup_steps) == ("paper", 100)


def test_vtab_label_safety_is_the_users_switch():
  config, _ = resolving.resolve(read("vtab.py:task=dmlab,crop=true,flip=false"))
  assert config.random_crop is True
  assert config.random_flip is False


@pytest.mark.parametrize(
  ("file", "message"),
  [
    ("vtab.py", r"task=svhn; the tasks are caltech101, .*, smallnorb-elevation\."),
    ("vtab.py:shots=5", "needs a task"),
    ("vtab.py:task=svnh", r"'svnh' \(did you mean svhn\?\). The tasks are caltech101"),
    ("vtab.py:task=", "task ''"),
    ("cifar10.py:task=svhn", "Unknown config argument 'task'"),
  ],
)
def test_a_missing_or_mistyped_task_is_told(file, message):
  with pytest.raises(errors.UserError, match=message):
    read(file)


def test_the_keras_recipe():
  c, spec = resolving.resolve(read("tf_flowers.py"))
  assert (spec.train_split, spec.test_split) == ("train[:85%]", "train[85%:]")
  assert (c.model, c.resize, c.crop, c.test_size) == ("BiT-M-R50x1", 384, 224, 384)
  assert (c.batch_size, c.base_lr, c.total_steps) == (64, 0.000375, 4_000)
  assert (c.warmup_steps, c.mixup_alpha) == (0, 0)
  assert c.decay_steps == (200, 300, 400)
  assert (c.eval_every, c.patience, c.keep_best) == (10, 2, True)


def test_the_qiita_recipe():
  c, _ = resolving.resolve(read("cats_vs_dogs.py"))
  assert (c.preset, c.resize, c.crop, c.test_size) == ("scaled", 512, 480, 480)
  assert (c.batch_size, c.base_lr, c.total_steps) == (64, 0.000375, 80_000)
  assert (c.warmup_steps, c.mixup_alpha) == (0, 0.1)
  assert c.decay_steps == (24_000, 48_000, 72_000)
  assert (c.min_side, c.max_aspect) == (32, 4)


def test_the_qiita_recipe_at_few_shots():
  c, _ = resolving.resolve(read("cats_vs_dogs.py:shots=10"))
  assert (c.total_steps, c.decay_steps) == (4_000, (1_600, 2_400, 3_200))
  assert (c.warmup_steps, c.mixup_alpha) == (0, 0)


@pytest.mark.parametrize(("shots", "steps"), [(1, 500), (10, 500), (25, 10_000), (None, 20_000)])
def test_imagenet_few_shot_follows_the_number_of_images_used(shots, steps):
  config, _ = resolving.resolve(read(file_of("imagenet2012", f"shots={shots}" if shots else "")))
  assert config.total_steps == steps


def test_the_configs_hold_what_their_texts_say():
  c = read("pretrain_mini.py")
  assert (c.model, c.dataset, c.weights) == ("R14x0.5", "cifar100", "none")
  epochs = c.total_steps * c.batch_size / 50_000
  assert epochs == pytest.approx(12, abs=0.05)
  fractions = [s / c.total_steps for s in c.decay_steps]
  assert fractions == pytest.approx([1 / 3, 2 / 3, 8 / 9], abs=1e-3)
  c = read("quickstart.py")
  assert (c.model, c.dataset, c.shots) == ("R14x0.5", "digits", 5)
