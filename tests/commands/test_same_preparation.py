"""`predict`, `embed` and the API prepare image files as `evaluate --path` does."""

import csv
import io
import os

import numpy as np
import pytest
import running
from PIL import Image

import bit_jax
from bit_jax import embed, predict
from bit_jax.inference import evaluated_data, evaluation, inputs, networks

NETWORK, SIZE, BATCH = "R14x0.5-CIFAR100", 40, 4
SIZES = {"small": [(24, 32)] * 6, "mixed": [(24, 32), (60, 50), (90, 20)] * 2}


@pytest.fixture(scope="module", autouse=True)
def _shared_compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def network():
  return networks.load(NETWORK, size=SIZE)


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
  """Images of a class; one can't be read."""
  monkeypatch.chdir(tmp_path)
  random = np.random.default_rng(0)
  place = tmp_path / request.param
  (place / "apple").mkdir(parents=True)
  for i, size in enumerate(SIZES[request.param]):
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(place / "apple" / f"{i}.png")
  (place / "apple" / "broken.png").write_text("no image")
  return place


@pytest.mark.parametrize("folder", SIZES, indirect=True)
def test_files_have_the_probabilities_of_their_evaluation(folder, network, capsys):
  loaded, _ = evaluated_data.choose(network, path=str(folder)).load()
  found = evaluation.evaluate_part(network.model, network.params, SIZE, loaded, BATCH)
  confidence = dict(zip(loaded.paths, found.confidence.tolist(), strict=True))
  line = [NETWORK, str(folder), f"--size={SIZE}", f"--batch_size={BATCH}"]
  assert predict.main([*line, "--csv", "--top=1"]) == 1
  rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
  predicted = {os.path.relpath(r["path"], folder): float(r["probability"]) for r in rows}
  assert predicted == pytest.approx(confidence, rel=5e-7)  # it is printed with seven digits
  classifier = bit_jax.Classifier(network, BATCH)
  with pytest.warns(UserWarning, match="broken.png is not"):
    called = classifier.predict(folder, on_bad_image="skip")
  assert {os.path.relpath(p.path, folder): p.probability for p in called} == confidence
  # Labelled or not, files have the same features to the last bit.
  assert embed.main([*line, "--out=plain.npz"]) == 1
  line[1] = f"--path={folder}"
  assert embed.main([*line, "--out=labelled.npz"]) == 1
  with np.load("plain.npz") as plain, np.load("labelled.npz") as labelled:
    order = [f"{folder}/{path}" for path in labelled["ids"].tolist()]
    places = [plain["ids"].tolist().index(path) for path in order]
    assert len(places) == len(plain["ids"]) == 6
    np.testing.assert_array_equal(plain["features"][places], labelled["features"])
    with pytest.warns(UserWarning, match="broken.png is not"):
      called = classifier.features(folder, on_bad_image="skip")
    np.testing.assert_array_equal(called, plain["features"])


@pytest.mark.parametrize("folder", ["small"], indirect=True)
def test_the_size_that_images_keep(folder):
  """It is that of all readable ones, and nothing is read from pipes, which give it only once."""
  files = inputs.find([str(folder)]).files
  assert files.kept_size(28) == (24, 32)  # 768 of 784 pixels
  assert files.kept_size(27) is None
  Image.new("RGB", (32, 24)).save(folder / "apple" / "turned.png")
  assert inputs.find([str(folder)]).files.kept_size(28) == (24, 32)
  Image.new("RGB", (24, 32)).save(folder / "apple" / "turned.png")
  assert inputs.find([str(folder)]).files.kept_size(28) is None
  os.mkfifo("pipe")
  assert inputs.Files((*files.paths, "pipe")).kept_size(28) is None
