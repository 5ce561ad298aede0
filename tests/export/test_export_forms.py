"""Every export is loaded by its own runtime and computes what the network computes."""

import dataclasses
import json

import exporting
import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from bit_jax.data import augmentation
from bit_jax.export import checking, formats, graph, onnx_file, stablehlo, writing
from bit_jax.inference import networks
from bit_jax.models import architectures
from bit_jax.runtime import errors

TORCH = formats.FORMATS["safetensors"]  # see test_export_torch
FORMS = {form.name: form for forms in formats.FORMATS.values() if forms != TORCH for form in forms}
CLOSE = 3e-6  # of the largest logit
ROUNDED = 2e-2  # where images are rounded to whole grey levels first


@pytest.fixture(scope="module")
def network():
  return exporting.network()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
  """The network in every form."""
  folder = tmp_path_factory.mktemp("exports") / "all"
  written = writing.write(network, tuple(FORMS.values()), folder, "python -m bit_jax.export x")
  return {one.form.name: one for one in written}


@pytest.fixture(scope="module")
def expected(network):
  """Logits of the photo."""
  twice = np.stack([exporting.photo()] * 2)  # the one batch size that is compiled
  return exporting.logits(network, twice)[:1]


@pytest.mark.parametrize("name", FORMS)
def test_the_check_after_writing(exported, name):
  assert exported[name].difference <= CLOSE


@pytest.mark.parametrize("name", FORMS)
def test_the_card_s_code_in_a_process_of_its_own(exported, expected, name):
  folder = exported[name].folder
  exporting.photo_in(folder)
  logits, name_printed, probability = exporting.run_card(folder)
  assert name_printed == exporting.NAMES[expected.argmax()]
  probabilities = exporting.softmax(expected)
  if name == "npz":  # images are rounded to whole grey levels first
    assert logits is None
    assert probability == pytest.approx(probabilities.max(), rel=ROUNDED)
  else:
    assert logits.shape == expected.shape
    assert exporting.apart(logits, expected) <= CLOSE
    assert probability == pytest.approx(probabilities.max(), rel=1e-5)


@pytest.fixture(scope="module")
def session(exported):
  return onnxruntime.InferenceSession(exported["onnx"].folder / "model.onnx")


def test_the_interface_of_onnx(session):
  (images,) = session.get_inputs()
  assert (images.name, images.type) == ("images", "tensor(uint8)")
  assert images.shape == ["batch", "height", "width", 3]
  assert [(o.name, o.shape) for o in session.get_outputs()] == [
    ("logits", ["batch", 5]),
    ("probabilities", ["batch", 5]),
  ]
  facts = session.get_modelmeta().custom_metadata_map
  assert json.loads(facts["class_names"]) == list(exporting.NAMES)
  assert (facts["size"], facts["architecture"]) == (str(exporting.SIZE), "R14x0.5")


@pytest.mark.parametrize("height", [1, 31, 40, 200])
@pytest.mark.parametrize("width", [1, 40, 41, 300])
def test_images_of_any_size_in_onnx(network, session, height, width):
  images = np.random.default_rng(width).integers(0, 256, (2, height, width, 3), np.uint8)
  logits, probabilities = session.run(None, {"images": images})
  expected = exporting.logits(network, images)
  assert exporting.apart(logits, expected) <= CLOSE
  single = session.run(["logits"], {"images": images[1:]})[0]
  assert exporting.apart(single, expected[1:]) <= CLOSE
  np.testing.assert_allclose(probabilities, exporting.softmax(logits), rtol=1e-5, atol=1e-7)


def test_every_parameter_is_in_the_onnx_file(exported, network):
  model = onnx.load(exported["onnx"].folder / "model.onnx")
  names = {constant.name for constant in model.graph.initializer}
  assert set(architectures.parameter_shapes(network.model.architecture, 5)) <= names


def test_large_weights_lie_in_a_file_of_their_own(network, tmp_path, monkeypatch, expected):
  monkeypatch.setattr(onnx_file, "_MAX_BYTES", 1_000_000)
  (tmp_path / "large").mkdir()
  onnx_file.write(network, tmp_path / "large")
  sizes = {path.name: path.stat().st_size for path in (tmp_path / "large").iterdir()}
  assert sizes["model.onnx"] < 1_000_000 < sizes["model.onnx.data"]
  found = onnx_file.FORM.classify(tmp_path / "large", network, exporting.photo()[None])
  assert exporting.apart(found, expected) <= CLOSE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["R50x1", "R14x1"])
def test_other_architectures_in_onnx(name, tmp_path):
  network = exporting.network(name, 33)
  onnx_file.write(network, tmp_path)
  images = checking.images()
  found = onnx_file.FORM.classify(tmp_path, network, images)
  assert exporting.apart(found, exporting.logits(network, images)) <= CLOSE


def test_the_graph_uses_every_parameter_once():
  class Names:
    """Operations that note the parameters which they use."""

    def __init__(self):
      self.kernels, self.norms = [], []

    def convolve(self, x, name, stride):
      self.kernels.append(f"{name}/kernel")
      return x

    def group_norm_relu(self, x, name):
      self.norms += [f"{name}/gamma", f"{name}/beta"]
      return x

    def max_pool(self, x):
      return x

    def add(self, x, y):
      return x

  for architecture in architectures.ARCHITECTURES.values():
    names = Names()
    graph.body(architecture, None, names)
    found = names.kernels + names.norms
    assert sorted(found) == sorted(architectures.parameter_shapes(architecture, None))


def test_the_interface_of_the_savedmodel(exported, network):
  import tensorflow as tf

  folder = exported["savedmodel"].folder
  classify = tf.saved_model.load(str(folder)).signatures["serving_default"]
  spec = classify.structured_input_signature[1]["images"]
  assert (spec.shape.as_list(), spec.dtype) == ([None, None, None, 3], tf.uint8)
  assert (folder / "assets/classes.txt").read_text().splitlines() == list(exporting.NAMES)
  images = np.random.default_rng(0).integers(0, 256, (2, 41, 33, 3), np.uint8)
  outputs = classify(images=tf.constant(images))
  assert set(outputs) == {"logits", "probabilities"}
  assert exporting.apart(outputs["logits"].numpy(), exporting.logits(network, images)) <= CLOSE
  np.testing.assert_allclose(outputs["probabilities"].numpy().sum(1), 1, rtol=1e-6)


def test_the_programs_of_jax_are_for_every_platform(exported):
  folder = exported["stablehlo"].folder
  described = json.loads((folder / "signature.json").read_text())
  for name in ("resize.stablehlo", "classify.stablehlo"):
    program = jax.export.deserialize(bytearray((folder / name).read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu") == tuple(described["platforms"])
  assert described["class_names"] == list(exporting.NAMES)
  with np.load(folder / "weights.npz") as weights:
    assert len(weights) == len(architectures.parameter_shapes(architectures.find("R14x0.5"), 5))


@pytest.mark.parametrize("shape", [(2, 40, 40, 3), (1, 3, 200, 3), (3, 601, 1, 3)])
def test_resizing_of_the_program_is_that_of_evaluation(exported, shape):
  data = (exported["stablehlo"].folder / "resize.stablehlo").read_bytes()
  resize = jax.export.deserialize(bytearray(data)).call
  images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  expected = augmentation.prepare_eval(images, exporting.SIZE)
  np.testing.assert_allclose(resize(images), expected, atol=2e-6)


def test_an_npz_folder_is_a_run_folder(exported, network):
  read = networks.load(str(exported["npz"].folder))
  assert (read.class_names, read.size) == (network.class_names, network.size)
  jax.tree.map(np.testing.assert_array_equal, read.params, network.params)


def test_a_library_that_computes_something_else(network, tmp_path, monkeypatch):
  def wrong(folder, network, images):
    return np.full((2, 5), np.nan, np.float32)

  bad = dataclasses.replace(stablehlo.FORM, classify=wrong, write=lambda network, folder: None)
  with pytest.raises(errors.UserError, match=r"computes other logits .* the export was deleted"):
    writing.write(network, (bad,), tmp_path / "out", "command")
  assert list(tmp_path.iterdir()) == []
