"""Networks of run folders, checkpoint files and released checkpoints."""

import json

import numpy as np
import pytest
import synthetic

from bit_jax import weights
from bit_jax.inference import networks
from bit_jax.runs import run_folder
from bit_jax.runtime import devices, errors

CONFIG = {"model": "R14x0.5", "test_size": 40, "dtype": "float32"}


@pytest.fixture(scope="module")
def params():
  return synthetic.parameters("R14x0.5", 3)


@pytest.fixture
def run(tmp_path, params):
  """A run folder with what `load` needs of it."""
  weights.save(tmp_path / "model.npz", params)
  (tmp_path / "config.json").write_text(json.dumps(CONFIG))
  (tmp_path / "classes.txt").write_text("ant\nbee\nwasp, common\n")
  return tmp_path


@pytest.mark.parametrize("file", ["", "model.npz"])
def test_a_run(run, file, params):
  found = networks.load(str(run / file))
  assert (found.size, found.class_names) == (40, ("ant", "bee", "wasp, common"))
  assert (found.folder, found.file, found.config) == (run, run / "model.npz", CONFIG)
  assert (found.model.architecture.name, found.model.dtype) == ("R14x0.5", np.float32)
  assert found.remarks == ()
  kernel = found.params["head"]["conv2d"]["kernel"]
  np.testing.assert_array_equal(kernel, params["head"]["conv2d"]["kernel"])
  other = networks.load(str(run / file), size=56, dtype="bfloat16")
  assert (other.size, other.model.dtype.name) == (56, "bfloat16")


@pytest.mark.parametrize(("capability", "dtype"), [("7.5", "float32"), ("8.0", "bfloat16")])
def test_the_dtype_of_a_checkpoint_is_that_of_the_devices(capability, dtype, monkeypatch):
  card = devices.Description("gpu", "a card", 16 * 2**30, 1, 1, capability)
  monkeypatch.setattr(devices, "describe", lambda: card)
  assert networks.load("R14x0.5-CIFAR100").model.dtype.name == dtype


def test_a_checkpoint_file_without_a_run(tmp_path, params):
  file = tmp_path / "mine.npz"
  weights.save(file, params)
  found = networks.load(str(file))
  assert (found.size, found.folder) == (224, None)
  assert found.class_names == ("class 0", "class 1", "class 2")
  assert "choose another size" in found.remarks[0]
  assert found.released is None
  assert "doesn't state its classes" in found.remarks[1]
  assert networks.load(str(file), size=64).size == 64


def test_a_file_that_is_only_called_like_a_released_one_is_none(tmp_path, params):
  file = tmp_path / "BiT-M-R50x1-CIFAR10.npz"
  weights.save(file, params)
  found = networks.load(str(file))
  assert (found.size, found.released, found.source.name) == (224, None, file.name)


def test_a_folder_of_timm_states_size_and_classes(tmp_path, params):
  file = tmp_path / "model.safetensors"
  weights.save(file, params)
  config = {"architecture": "resnetv2_14x0.5_bit", "label_names": ["ant", "bee", "wasp"]}
  config["pretrained_cfg"] = {"input_size": [3, 56, 56]}
  (tmp_path / "config.json").write_text(json.dumps(config))
  found = networks.load(str(file))
  assert (found.size, found.class_names, found.remarks) == (56, ("ant", "bee", "wasp"), ())
  np.testing.assert_array_equal(found.params["group_norm"]["gamma"], params["group_norm"]["gamma"])


def test_the_checkpoint_of_the_package():
  """By its name or by its path, which is that of a file called like it anywhere."""
  by_name = networks.load("R14x0.5-CIFAR100")
  for found in (by_name, networks.load(str(by_name.file))):
    assert (found.size, len(found.class_names), found.remarks) == (48, 100, ())
    assert found.released is weights.CATALOGUE["R14x0.5-CIFAR100"]
    assert found.source.name == "R14x0.5-CIFAR100"


@pytest.mark.parametrize(
  ("name", "size"),
  [
    ("BiT-S-R50x1", 224),
    ("BiT-M-R152x4", 224),
    ("BiT-M-R101x1-ILSVRC2012", 480),
    ("BiT-M-R50x1-CIFAR10", 128),
    ("R50x1_160", 160),
    ("R152x2_T_384", 384),
    ("R152x2_T_pet128", 128),
    ("BiT-M-R50x1-run0-oxford_flowers102", 384),
    ("BiT-M-R152x4-run2-sun397", 480),  # the paper gives its largest network larger images
    ("BiT-M-R101x3-run1-cifar100", 128),
    ("timm/resnetv2_50x1_bit.goog_in21k", 224),
    ("timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384", 384),
  ],
)
def test_released_checkpoints_have_the_size_of_their_evaluation(name, size):
  assert networks.default_size(weights.CATALOGUE[name]) == size


def without_weights(run):
  (run / "model.npz").unlink()


def without_config(run):
  (run / "config.json").unlink()


def with_a_class_less(run):
  (run / "classes.txt").write_text("ant\nbee\n")


def with_a_class_twice(run):
  (run / "classes.txt").write_text("ant\nbee\nant\n")


def in_another_order(run):
  digests = run_folder.class_digests(["bee", "ant", "wasp, common"])
  (run / "environment.json").write_text(json.dumps({"classes": digests}))


def of_no_size(run):
  (run / "config.json").write_text(json.dumps({**CONFIG, "test_size": "big"}))


def of_another_network(run):
  (run / "config.json").write_text(json.dumps({**CONFIG, "model": "R14x1"}))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (without_weights, "isn't finished"),
    (without_config, "is not a run folder"),
    (with_a_class_less, "names 2 classes, and the network has 3"),
    (with_a_class_twice, "has the name ant more than once"),
    (in_another_order, r"classes\.txt has the run's classes in another order"),
    (of_no_size, r"test_size is 'big'"),
    (of_another_network, "holds R14x0.5, not R14x1"),
  ],
)
def test_faulty_runs_are_an_error(run, damage, message):
  damage(run)
  with pytest.raises(errors.UserError, match=message):
    networks.load(str(run))


def test_classes_may_be_renamed(run):
  for names in (["ant", "bee", "wasp, common"], ["a", "b", "c"]):
    recorded = {"classes": run_folder.class_digests(names)}
    (run / "environment.json").write_text(json.dumps(recorded))
    assert networks.load(str(run)).class_names == ("ant", "bee", "wasp, common")


def test_the_classes_of_a_head(run, tmp_path, params):
  file = run / "model.npz"
  assert networks.head_classes("x", file, 3) == ("ant", "bee", "wasp, common")
  assert networks.head_classes("x", file, 4) is None
  weights.save(tmp_path / "elsewhere" / "mine.npz", params)
  assert networks.head_classes("x", tmp_path / "elsewhere" / "mine.npz", 3) is None
  released = networks.head_classes("R14x0.5-CIFAR100", weights.locate("R14x0.5-CIFAR100"), 100)
  assert released[:2] == ("apple", "aquarium_fish")


def test_a_run_without_a_list_of_classes_names_them_by_number(run):
  (run / "classes.txt").unlink()
  found = networks.load(str(run))
  assert found.class_names == ("class 0", "class 1", "class 2")
  assert "classes.txt doesn't exist" in found.remarks[0]


def test_a_checkpoint_without_a_head_is_an_error(tmp_path, params):
  file = tmp_path / "body.npz"
  weights.save(file, {name: part for name, part in params.items() if name != "head"})
  with pytest.raises(errors.UserError, match="has no head"):
    networks.load(str(file))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [({"size": 0}, "size must be at least 1"), ({"dtype": "half"}, "dtype=half")],
)
def test_wrong_arguments_are_an_error(arguments, message):
  with pytest.raises(errors.UserError, match=message):
    networks.load("R14x0.5-CIFAR100", **arguments)


@pytest.mark.parametrize(
  "change",
  [{"test_size": 0}, {"test_size": 10**9}, {"test_size": 40.0}, {"dtype": "int8"}, {"dtype": []}],
)
def test_a_config_that_no_run_can_have(run, change):
  (run / "config.json").write_text(json.dumps(CONFIG | change))
  with pytest.raises(errors.UserError, match=rf"config.json is damaged \({next(iter(change))} is"):
    networks.load(str(run))


def test_a_size_of_timm_that_is_absurd(tmp_path, params):
  file = tmp_path / "model.safetensors"
  weights.save(file, params)
  config = {"architecture": "x", "input_size": [3, 10**30, 10**30]}
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(errors.UserError, match=r"The size that the config.json beside .* at most"):
    networks.load(str(file))
  (tmp_path / "config.json").write_text("[" * 100_000)
  assert networks.load(str(file)).size == 224
