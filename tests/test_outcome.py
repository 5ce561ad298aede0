"""What a run leaves behind: the right images under the right captions, and the closing summary."""

import functools
import json

import jax
import numpy as np
import pytest
import running

from bit_jax import classwise, experiment, outcome, pictures, runs
from bit_jax.data import arrays, device, loading, order


@pytest.fixture
def config():
  return experiment.resolve(running.config())[0]


@pytest.fixture
def sheets(monkeypatch):
  """The arguments of every sheet of images that is drawn."""
  drawn = []
  monkeypatch.setattr(pictures, "sheet", lambda *arguments: drawn.append(arguments))
  return drawn


def part(n):
  random = np.random.default_rng(n)
  labels = np.arange(n, dtype=np.int32) % 3
  images = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
  examples = arrays.Examples(images, labels, ("x", "y", "z"))
  return loading.Part(examples, None, examples.class_names, examples, labels)


def test_the_augmented_images_are_those_of_the_first_step(tmp_path, config, sheets):
  train = part(30)
  outcome.draw_augmented(tmp_path, config, train)
  ((images, captions, path, _),) = sheets
  indices = order.batch(config.seed, 0, 16, 30)
  keys = device.example_keys(jax.random.key(config.seed), 0, np.arange(16))
  taken = train.examples.take(indices)
  augment = jax.jit(functools.partial(device.augment, resize=40, crop=32))
  expected = augment(taken.images, keys, flip=config.random_flip, random_crop=True)
  np.testing.assert_allclose(images, expected, atol=1e-6)
  assert captions == ["xyz"[label] for label in taken.labels]
  assert path == tmp_path / "augmented.png"


@pytest.mark.parametrize(("n", "shown"), [(5, range(5)), (31, range(0, 31, 2))])
def test_predictions_are_shown_with_their_images(tmp_path, config, sheets, n, shown):
  test = part(n)
  predictions = test.labels.copy()
  predictions[2] = 0  # a z
  row = {"step": 1, "kind": "eval", "loss": 1.0, "top1": 0.75}
  (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  outcome.draw_curves_and_predictions(tmp_path, config, test, 0.75, predictions)
  ((images, captions, path, title),) = sheets
  np.testing.assert_array_equal(images, test.examples.images[list(shown)])
  expected = ["xyz"[i % 3] for i in shown]
  expected[list(shown).index(2)] = "!x (z)"
  assert captions == expected
  assert path == tmp_path / "predictions.png"
  assert "R14x0.5 from random initialisation, top-1 75.00%" in title
  assert (tmp_path / "curves.png").exists()


def test_the_result_is_written_last(tmp_path, config, monkeypatch):
  """Whatever fails before leaves a run that is not finished."""
  monkeypatch.setattr(outcome, "draw_curves_and_predictions", lambda *_: 1 / 0)
  monkeypatch.setattr(classwise, "write", lambda *_: None)
  test = part(6)
  data = loading.Loaded(test, test, "v", None, {}, [], None, None, [])
  with pytest.raises(ZeroDivisionError):
    outcome.write(tmp_path, config, data, {"top1": 0.5}, test.labels, test.labels)
  assert not list(tmp_path.iterdir())
  monkeypatch.setattr(outcome, "draw_curves_and_predictions", lambda *_: None)
  outcome.write(tmp_path, config, data, {"top1": 0.5}, test.labels, test.labels)
  assert runs.finished(tmp_path) == {"top1": 0.5}


RESULT = {"top1": 0.98765, "num_test": 1234, "steps": 5000, "left_out": {}, "warnings": []}


def test_summary():
  first, *files = outcome.summary("some/run", RESULT).splitlines()
  assert first == "Top-1 accuracy 98.77% on 1,234 images after 5,000 steps."
  assert files[0].startswith("  some/run/model.npz ")
  assert files[0].endswith(" the fine-tuned weights, in the official naming")
  assert all(line.startswith("  some/run/") for line in files)


def test_the_summary_tells_what_is_special():
  special = {"best_step": 3000, "left_out": {"small images": 1500}, "warnings": ["It is old."]}
  first, left_out, warning, *_ = outcome.summary("run", RESULT | special).splitlines()
  assert first.endswith("after step 3,000, the best evaluation of 5,000 steps.")
  assert (left_out, warning) == ("Left out: 1,500 small images.", "warning: It is old.")
