"""Tests of experiments.evaluation."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
import synthetic
from hypothesis import strategies as st
from PIL import Image

from bit_jax.data import augmentation, datasets, pipeline
from bit_jax.data.sources import arrays
from bit_jax.inference import evaluation as evaluator
from bit_jax.inference import footprint
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import errors
from experiments import evaluation

R14 = architectures.find("R14x0.5")


class One:
  """A source of one image."""

  def __init__(self, image):
    self._image = image

  def __len__(self):
    return 1

  def read(self, index):
    return self._image, 3


@pytest.mark.parametrize(
  ("view", "text"),
  [
    (evaluation.View(128), "128 square"),
    (evaluation.View(224, 256, "bicubic"), "224 of 256, bicubic"),
    (evaluation.View(448, 448), "448 of 448, bilinear"),
  ],
)
def test_views_have_names(view, text):
  assert str(view) == text


def test_the_centre_of_an_image_twice_as_wide():
  pixels = np.zeros((20, 40, 3), np.uint8)
  pixels[:, 10:30] = 200  # just the centre
  image, label = evaluation.CentreCrops(One(pixels), evaluation.View(20, 20)).read(0)
  assert (image.shape, image.dtype, label) == ((20, 20, 3), np.uint8, 3)
  assert (image == 200).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_is_cut_of_the_image_resized_by_pillow(interpolation):
  pixels = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
  view = evaluation.View(14, 16, interpolation)
  image, _ = evaluation.CentreCrops(One(pixels), view).read(0)
  method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
  whole = np.asarray(Image.fromarray(pixels).resize((24, 16), method[interpolation]))
  np.testing.assert_array_equal(image, whole[1:15, 5:19])


@hypothesis.given(
  height=st.integers(1, 60),
  width=st.integers(1, 60),
  size=st.integers(1, 20),
  more=st.integers(0, 9),
)
def test_centres_have_the_size_whatever_the_image(height, width, size, more):
  pixels = np.full((height, width, 3), 77, np.uint8)
  image, _ = evaluation.CentreCrops(One(pixels), evaluation.View(size, size + more)).read(0)
  assert image.shape == (size, size, 3)
  assert (image == 77).all()  # nothing from beyond its edges


def test_a_square_view_is_of_the_test_split_alone():
  tests = evaluation.load("digits", evaluation.View(24))
  loaded = tests.loaded
  assert (len(loaded.part), loaded.image_size, loaded.warnings) == (1_000, (8, 8), [])
  np.testing.assert_array_equal(loaded.part.labels, arrays.load_digits()[1].labels)


def test_images_are_resized_on_their_way_where_their_centre_is_wanted():
  tests = evaluation.load("digits", evaluation.View(6, 12))
  assert tests.loaded.part.examples is None
  assert tests.loaded.image_size == (6, 6)
  images, _ = tests.loaded.part.some(np.arange(3))
  assert images.shape == (3, 6, 6, 3)


def test_progress_names_network_set_and_images(params, capsys):
  tests = evaluation.load("digits", evaluation.View(8))
  evaluation.evaluate(params, R14, tests)
  printed = capsys.readouterr()
  assert "R14x0.5 on digits at 8 square: 100%" in printed.err
  assert "1000/1000" in printed.err
  assert printed.out == ""


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def params():
  params = synthetic.parameters("R14x0.5", 10)
  params["head"]["conv2d"]["kernel"] *= 9  # so that predictions vary
  return params


def test_accuracy_is_that_of_a_plain_forward_pass(params):
  tests = evaluation.load("digits", evaluation.View(16))
  digits = tests.loaded.part
  examples = arrays.Examples(*digits.some(np.arange(70)), digits.class_names)
  part = pipeline.Part(examples, None, examples.class_names, examples, examples.labels)
  tests = dataclasses.replace(tests, loaded=dataclasses.replace(tests.loaded, part=part))
  means = evaluation.evaluate(params, R14, tests, batch_size=16)

  inputs = augmentation.prepare_eval(jnp.asarray(examples.images), 16)
  logits = np.asarray(jax.jit(resnet_v2.ResNetV2(R14, 10).apply)({"params": params}, inputs)[0])
  predictions = logits.argmax(1)
  assert len(set(predictions.tolist())) > 1
  assert means["top1"] == pytest.approx(np.mean(predictions == examples.labels), abs=1e-6)


def test_the_batch_is_what_fits_and_float32_is_exact(params, monkeypatch):
  given = {}

  def batch(model, size, source, **options):
    given.update(size=size, source=source, **options)
    return 4

  monkeypatch.setattr(footprint, "batch", batch)
  seen = []

  def evaluate(*arguments):
    seen.append((arguments[4], jax.config.jax_default_matmul_precision))
    return evaluator.Evaluation({"top1": 1.0, "loss": 0.0}, None, None, None)

  monkeypatch.setattr(evaluator, "evaluate", evaluate)
  tests = evaluation.load("digits", evaluation.View(16))
  assert evaluation.evaluate(params, R14, tests, batch_size=64)["top1"] == 1.0
  assert seen == [(4, "highest")]  # the latter matters on GPUs
  assert given["budget"] > 0
  assert {**given, "budget": 0} == {
    "size": 16,
    "source": (8, 8),
    "wanted": 64,
    "num_images": 1_000,
    "budget": 0,
    "count": 4,
  }


def test_out_of_memory_is_a_sentence(params, monkeypatch):
  def fail(*_):
    raise MemoryError

  monkeypatch.setattr(evaluator, "evaluate", fail)
  tests = evaluation.load("digits", evaluation.View(16))
  with pytest.raises(errors.UserError, match=r"ran out of memory with R14x0\.5 at 16 pixels"):
    evaluation.evaluate(params, R14, tests)


def test_unknown_sets_are_an_error():
  with pytest.raises(errors.UserError, match="Unknown data set 'cifar11'"):
    evaluation.load("cifar11", evaluation.View(16))


def test_a_set_that_is_not_prepared_says_how_to_get_it(tmp_path):
  with pytest.raises(errors.UserError, match=r"python -m bit_jax.data doctor cifar10 --download"):
    evaluation.load("cifar10", evaluation.View(16), str(tmp_path))


def test_sets_are_described_by_their_specification():
  assert evaluation.load("digits", evaluation.View(16)).spec == datasets.find("digits", "final")
