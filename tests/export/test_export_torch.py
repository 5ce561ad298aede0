"""The folders for timm and transformers, which their own code has loaded: `make exports`.

Where PyTorch isn't installed, the same bytes are written again, and their logits are compared.
"""

import dataclasses
import json
import pathlib

import exporting
import numpy as np
import pytest
import safetensors.numpy

from bit_jax.export import formats, torch_folders, writing
from bit_jax.models import architectures, resnet_v2
from experiments.exports import comparison

LOGITS = pathlib.Path(__file__).with_name("torch_logits.npz")
NAMES = [
  comparison.TRAINED,
  pytest.param(comparison.RANDOM, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
  return request.param


@pytest.fixture(scope="module")
def network(name):
  return comparison.network(name)


@pytest.fixture(scope="module")
def stored():
  with np.load(LOGITS) as arrays:
    return dict(arrays)


@pytest.fixture(scope="module")
def folders(network, tmp_path_factory):
  folder = tmp_path_factory.mktemp("torch")
  for form in formats.FORMATS["safetensors"]:
    (folder / form.name).mkdir()
    form.write(network, folder / form.name)
    lines = "".join(f"{name}\n" for name in network.class_names)
    (folder / form.name / writing.CLASSES).write_text(lines)
  return folder


def test_the_logits_of_the_libraries(name, network, stored, tmp_path):
  expected = comparison.own_logits(network, comparison.sample_photos(tmp_path))
  for form in comparison.TORCH:
    assert exporting.apart(stored[f"{form}/{name}"], expected) <= 1e-5


@pytest.mark.parametrize("form", comparison.TORCH)
def test_the_files_are_those_that_the_libraries_loaded(name, folders, stored, form):
  digest = comparison.digest_of(folders / form)
  assert digest == str(stored[f"{form}/{name}/sha256"]), "run `make exports`"


def test_both_hold_the_parameters_once(network, folders):
  timm, transformers = (
    safetensors.numpy.load_file(folders / form / "model.safetensors") for form in comparison.TORCH
  )
  shapes = architectures.parameter_shapes(network.model.architecture, len(network.class_names))
  assert len(timm) == len(transformers) == len(shapes)
  by_sum = [
    sorted(float(np.abs(array).sum(dtype=np.float64)) for array in of.values())
    for of in (timm, transformers)
  ]
  np.testing.assert_allclose(*by_sum, rtol=1e-12)
  assert timm["head.fc.weight"].shape[2:] == (1, 1)
  np.testing.assert_array_equal(
    transformers["classifier.1.weight"][..., None, None], timm["head.fc.weight"]
  )


def test_the_configs(network, folders):
  timm = json.loads((folders / "timm/config.json").read_text())
  assert timm["label_names"] == list(network.class_names)
  preprocessing = timm["pretrained_cfg"]
  assert preprocessing["input_size"] == [3, network.size, network.size]
  assert (preprocessing["crop_pct"], preprocessing["crop_mode"]) == (1, "squash")
  config = json.loads((folders / "transformers/config.json").read_text())
  assert list(config["id2label"].values()) == list(network.class_names)
  assert {config["id2label"][str(i)]: i for i in range(len(network.class_names))} == config[
    "label2id"
  ]
  assert config["hidden_sizes"][-1] == network.model.architecture.num_features
  processor = json.loads((folders / "transformers/preprocessor_config.json").read_text())
  assert set(processor["size"].values()) == {network.size}
  for part in (preprocessing["mean"], preprocessing["std"], processor["image_mean"]):
    assert part == [0.5, 0.5, 0.5]


def test_networks_that_timm_has_by_name():
  released = exporting.network("R14x1")
  assert "resnetv2.ResNetV2(" in torch_folders.TIMM.example(released)
  of_timm = dataclasses.replace(released, model=resnet_v2.create("R50x1", 5))
  assert 'timm.create_model("local-dir:.", pretrained=True)' in torch_folders.TIMM.example(of_timm)
