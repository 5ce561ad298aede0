"""`bit_jax.load` and its classifier, on images in every form."""

import pathlib

import jax
import numpy as np
import pytest
import running
from PIL import Image

import bit_jax
from bit_jax import weights
from bit_jax.data import augmentation, resizing
from bit_jax.inference import evaluation
from bit_jax.models import resnet_v2

NAME = "R14x0.5-CIFAR100"
SIZE = 32
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def classifier():
  return bit_jax.load(NAME, size=SIZE, batch_size=4)


@pytest.fixture
def photos(tmp_path):
  (tmp_path / "photos" / "more").mkdir(parents=True)
  paths = [tmp_path / "photos" / f"{name}.png" for name in ("a", "b", "more/c")]
  for path, pixels in zip(paths, PIXELS, strict=False):
    Image.fromarray(pixels).save(path)
  return paths


@pytest.fixture(scope="module")
def pre_logits(classifier):
  """A function from [6, 32, 32, 3] float32 in [-1, 1] to features, by the network itself."""
  apply = jax.jit(resnet_v2.create("R14x0.5", 100).apply)

  def compute(images):
    with jax.default_matmul_precision("highest"):
      return np.asarray(apply({"params": classifier.network.params}, images)[1]["pre_logits"])

  return compute


def close(found, other):
  """Asserts that two lists of predictions are the same but for rounding."""
  assert [p.label for p in found] == [p.label for p in other]
  np.testing.assert_allclose(
    [p.probability for p in found], [p.probability for p in other], rtol=1e-4
  )


def test_what_it_is(classifier):
  assert len(classifier.class_names) == 100
  assert classifier.class_names[:2] == ("apple", "aquarium_fish")
  assert classifier.size == SIZE
  assert bit_jax.load(NAME).size == 48
  assert repr(classifier) == f"Classifier('{NAME}': R14x0.5, 100 classes, 32 pixels)"


def test_predictions_are_the_softmax_of_the_network(classifier, pre_logits):
  features = np.float64(pre_logits(PIXELS.astype(np.float32) / 127.5 - 1))
  np.testing.assert_allclose(classifier.features(PIXELS), features, atol=1e-4, rtol=1e-4)
  head = classifier.network.params["head"]["conv2d"]
  logits = features @ np.float64(head["kernel"]).reshape(-1, 100) + np.float64(head["bias"])
  powers = np.exp(logits - logits.max(axis=1, keepdims=True))
  probabilities = powers / powers.sum(axis=1, keepdims=True)
  found = classifier.predict(PIXELS, top=3)
  assert len(found) == 6
  for prediction, row in zip(found, probabilities, strict=True):
    best = np.argsort(-row)[:3]
    assert [name for name, _ in prediction.top] == [classifier.class_names[i] for i in best]
    np.testing.assert_allclose([p for _, p in prediction.top], row[best], rtol=1e-3)
    assert (prediction.class_name, prediction.probability) == prediction.top[0]
    assert prediction.label == best[0]
    assert prediction.path is None
  assert len(classifier.predict(PIXELS[0], top=1000)[0].top) == 100


def test_every_form_of_the_same_images(classifier, photos, monkeypatch, tmp_path):
  wanted = classifier.predict(PIXELS[:3])
  texts = [str(path) for path in photos]
  for images in (list(PIXELS[:3]), tuple(Image.fromarray(image) for image in PIXELS[:3])):
    found = classifier.predict(images)
    close(found, wanted)
    assert [p.path for p in found] == [None] * 3
  for images in (photos, texts, tmp_path / "photos", f"{tmp_path}/photos/**/*.png"):
    found = classifier.predict(images)
    close(found, wanted)
    assert [p.path for p in found] == texts
  for image in (PIXELS[1], Image.fromarray(PIXELS[1]), texts[1], photos[1]):
    close(classifier.predict(image), wanted[1:2])
  monkeypatch.setenv("HOME", str(tmp_path))
  close(classifier.predict(["~/photos/b.png", "~/photos/b.png"]), [wanted[1]] * 2)


def test_forms_of_grey_and_transparent_images(classifier):
  grey = PIXELS[..., 0]
  colour = np.repeat(grey[..., None], 3, axis=-1)
  wanted = classifier.predict(colour)
  close(classifier.predict(grey), wanted)
  close(classifier.predict(grey[..., None]), wanted)
  close(classifier.predict(grey[0]), wanted[:1])
  close(classifier.predict(Image.fromarray(grey[0])), wanted[:1])
  clear = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))  # is white
  white = np.full((SIZE, SIZE, 3), 255, np.uint8)
  close(classifier.predict(clear), classifier.predict(white))


def test_images_of_other_sizes_are_resized(classifier, pre_logits):
  large = RANDOM.integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
  resized = np.stack([resizing.resize(image, SIZE) for image in large])
  close(classifier.predict(large), classifier.predict(resized))
  mixed = [large[0], PIXELS[0], large[1]]
  close(classifier.predict(mixed), classifier.predict([resized[0], PIXELS[0], resized[1]]))
  # Small ones of one size are resized on the devices, which rounds nothing.
  small = PIXELS[:, :20, :25]
  exact = np.asarray(augmentation.prepare_eval(small, SIZE))
  np.testing.assert_allclose(classifier.features(small), pre_logits(exact), atol=1e-4, rtol=1e-4)


def test_no_images(classifier):
  assert classifier.predict([]) == []
  assert classifier.features([]).shape == (0, 1024)
  assert classifier.features(PIXELS).dtype == np.float32


def test_images_that_cannot_be_read(classifier, photos):
  photos[1].write_text("no image")
  wanted = classifier.predict([photos[0], photos[2]])
  with pytest.raises(bit_jax.UserError, match=r"1 of 3 images can't be read.*\n.*b.png is not a"):
    classifier.predict(photos)
  with pytest.raises(bit_jax.UserError, match="1 of 3"):
    classifier.features(photos)
  with pytest.warns(UserWarning, match="b.png is not a"):
    found = classifier.predict(iter(photos), on_bad_image="skip")
  assert [p.path for p in found] == [str(photos[0]), str(photos[2])]
  close(found, wanted)


def test_evaluation_takes_its_batch_size_and_the_parameters_are_placed_once(
  classifier, tmp_path, monkeypatch
):
  for name, pixels in zip(("apple", "bee"), PIXELS, strict=False):
    (tmp_path / name).mkdir()
    Image.fromarray(pixels).save(tmp_path / name / "a.png")
  evaluate, seen = evaluation.evaluate_part, []

  def recorded(model, params, size, loaded, batch_size):
    seen.append((batch_size, "_forward" in classifier.__dict__))
    return evaluate(model, params, size, loaded, batch_size)

  monkeypatch.setattr(evaluation, "evaluate_part", recorded)
  confidence = [p.probability for p in classifier.predict(tmp_path)]
  found = classifier.evaluate(tmp_path)
  assert seen == [(4, False)]
  assert sorted(found.confidence.tolist()) == sorted(confidence)


def test_what_was_assumed_is_a_warning(classifier, tmp_path):
  file = tmp_path / "mine.npz"
  weights.save(file, classifier.network.params)
  with pytest.warns(UserWarning, match="pixels|classes") as caught:
    bit_jax.load(file)
  texts = [str(w.message) for w in caught]
  assert texts[0] == "Images are resized to 224 pixels, unless you choose another size."
  assert "doesn't state its classes" in texts[1]


WRONG_IMAGES = {
  "not .4, 4, 4. uint8": np.zeros((2, 4, 4, 4), np.uint8),
  "uint8, 0 to 255, not .32, 32, 3. float32": PIXELS.astype(np.float32),
  "as paths, or all": ["a.png", PIXELS[0]],
  "files, arrays or images of Pillow, not 3": 3,
  "File or folder not found": "nowhere.png",
  "can't be opened": ["nowhere.png"],
}


@pytest.mark.parametrize("message", WRONG_IMAGES)
def test_wrong_images(classifier, message):
  with pytest.raises(bit_jax.UserError, match=message):
    classifier.predict(WRONG_IMAGES[message])


@pytest.mark.parametrize(
  ("message", "arguments"),
  {
    "top must be at least 1": {"top": 0},
    "top must be a whole number, not 1.5": {"top": 1.5},
    "on_bad_image='ignore' is not known": {"on_bad_image": "ignore"},
  }.items(),
)
def test_wrong_arguments(classifier, message, arguments):
  with pytest.raises(bit_jax.UserError, match=message):
    classifier.predict(PIXELS, **arguments)


def test_a_folder_without_images(classifier, tmp_path):
  with pytest.raises(bit_jax.UserError, match="contains no images"):
    classifier.predict(tmp_path)


@pytest.mark.parametrize("reference", ["R14x0.5-CIFAR10", "no/such.npz", pathlib.Path("/")])
def test_what_cannot_be_loaded(reference):
  with pytest.raises(bit_jax.UserError):
    bit_jax.load(reference)


def test_settings_of_jax_stay_and_change_nothing(classifier):
  wanted = classifier.predict(PIXELS)
  changed = {"jax_enable_x64": True, "jax_default_matmul_precision": "bfloat16"}
  before = {name: getattr(jax.config, name) for name in changed}
  try:
    for name, value in changed.items():
      jax.config.update(name, value)
    settings = dict(jax.config.values)
    found = bit_jax.load(NAME, size=SIZE, batch_size=4).predict(PIXELS)
    assert dict(jax.config.values) == settings
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
  assert found == wanted


SETTINGS = """
import jax
before = dict(jax.config.values)
import bit_jax
bit_jax.load
print([name for name, value in jax.config.values.items() if before[name] != value])
"""


def test_importing_the_api_changes_no_setting_of_jax(printed_by):
  assert printed_by(SETTINGS) == "[]\n"
