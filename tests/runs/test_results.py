"""What a run leaves behind: the right images under the right captions, and the closing summary."""

import errno
import functools
import json

import jax
import numpy as np
import pytest
import resolving
import running
from matplotlib.text import Text

from bit_jax.data import augmentation, order, pipeline
from bit_jax.data.sources import arrays
from bit_jax.runs import metrics_log, per_class, results, run_folder
from bit_jax.runtime import plots


@pytest.fixture
def config():
  return resolving.resolve(running.config())[0]


@pytest.fixture
def sheets(monkeypatch):
  """The arguments of every sheet of images that is drawn."""
  drawn = []
  monkeypatch.setattr(plots, "sheet", lambda *arguments: drawn.append(arguments))
  return drawn


def part(n):
  random = np.random.default_rng(n)
  labels = np.arange(n, dtype=np.int32) % 3
  images = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
  examples = arrays.Examples(images, labels, ("x", "y", "z"))
  return pipeline.Part(examples, None, examples.class_names, examples, labels)


def test_the_images_before_and_after_augmentation_are_those_of_the_first_step(
  tmp_path, config, sheets
):
  train = part(30)
  results.draw_augmented(tmp_path, config, train, pytest.fail)
  ((images, captions, path, _),) = sheets
  indices = order.batch(config.seed, 0, 16, 30)
  keys = augmentation.example_keys(jax.random.key(config.seed), 0, np.arange(16))
  taken = train.examples.take(indices)
  augment = jax.jit(functools.partial(augmentation.augment, resize=40, crop=32))
  expected = augment(taken.images, keys, flip=config.random_flip, random_crop=True)
  np.testing.assert_array_equal(np.stack(images[::2]), taken.images)
  np.testing.assert_allclose(np.stack(images[1::2]), expected, atol=1e-6)
  assert captions[::2] == ["xyz"[label] for label in taken.labels]
  assert captions[1::2] == ["augmented"] * 16
  assert path == tmp_path / "augmented.png"


@pytest.mark.parametrize(("n", "shown"), [(5, range(5)), (31, range(0, 31, 2))])
def test_predictions_are_shown_with_their_images(tmp_path, config, sheets, n, shown):
  test = part(n)
  predictions = test.labels.copy()
  predictions[2] = 0  # a z
  row = {"step": 1, "kind": "eval", "loss": 1.0, "top1": 0.75}
  (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
  results.draw(tmp_path, config, test, 0.75, predictions, test.labels, pytest.fail)
  ((images, captions, path, title),) = sheets
  np.testing.assert_array_equal(images, test.examples.images[list(shown)])
  expected = ["xyz"[i % 3] for i in shown]
  expected[list(shown).index(2)] = "!x (z)"
  assert captions == expected
  assert path == tmp_path / "predictions.png"
  assert "R14x0.5 from random initialisation, top-1 75.00%" in title
  assert (tmp_path / "curves.png").exists()
  assert (tmp_path / "confusion.png").exists()


def loaded(part):
  return pipeline.Loaded(part, part, "v", {}, [])


def test_the_result_comes_before_every_picture_and_after_every_table(tmp_path, monkeypatch):
  test = part(6)
  written = []
  write_json = run_folder.write_json
  monkeypatch.setattr(
    run_folder, "write_json", lambda *a: (written.extend(tmp_path.iterdir()), write_json(*a))
  )
  results.write(tmp_path, loaded(test), {"top1": 0.5}, test.labels, test.labels, pytest.fail)
  assert {p.name for p in written} == {"per_class.csv", "confusion.csv"}
  assert run_folder.finished(tmp_path) == {"top1": 0.5}


FAULTS = [
  OSError(errno.EACCES, "Permission denied"),
  MemoryError(),
  ImportError("matplotlib can't be imported"),
  ValueError("two\nlines"),
  jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda e: type(e).__name__)
def test_no_table_and_no_picture_costs_the_result(tmp_path, config, monkeypatch, fault):
  def fail(*_, **__):
    raise fault

  monkeypatch.setattr(plots, "figure", fail)
  monkeypatch.setattr(run_folder, "write_csv", fail)
  test, told = part(6), []
  results.draw_augmented(tmp_path, config, test, told.append)
  results.write(tmp_path, loaded(test), {"top1": 0.5}, test.labels, test.labels, told.append)
  results.draw(tmp_path, config, test, 0.5, test.labels, test.labels, told.append)
  assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
  names = ["augmented.png", "per_class.csv", "confusion.csv"]
  names += ["curves.png", "predictions.png", "confusion.png"]
  assert [text.partition(" was")[0] for text in told] == [f"warning: {name}" for name in names]
  assert all("\n" not in text for text in told)
  assert f"({type(fault).__name__}" in told[0]


def test_a_full_disk_stops_the_run_before_its_result(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(run_folder, "write_csv", fail)
  test = part(6)
  with pytest.raises(OSError, match="No space left on device") as raised:
    results.write(tmp_path, loaded(test), {"top1": 0.5}, test.labels, test.labels, pytest.fail)
  assert raised.value.filename == str(tmp_path / "per_class.csv")
  assert not list(tmp_path.iterdir())


RESULT = {"top1": 0.98765, "num_test": 1234, "steps": 5000, "left_out": {}, "warnings": []}
FILES = ["model.npz", "curves.png", "augmented.png", "predictions.png", "per_class.csv"]


@pytest.fixture
def finished_folder(tmp_path):
  for name in (*FILES, "confusion.png", "confusion.csv", "metrics.jsonl"):
    (tmp_path / name).write_text("class \\ predicted,a\n")
  return tmp_path


def test_summary(finished_folder):
  (finished_folder / "classes.txt").write_text("a")
  first, folder, *files = results.summary(str(finished_folder), RESULT).splitlines()
  assert first == "Top-1 accuracy 98.77% on 1,234 images after 5,000 steps."
  assert folder == f"{finished_folder}:"
  assert files[0] == "  model.npz        the fine-tuned weights, in the official naming"
  assert files[1] == "  curves.png       loss, accuracy and learning rate"
  assert names(files) == [*FILES, "confusion.csv", "confusion.png", "metrics.jsonl", "classes.txt"]


@pytest.mark.parametrize(
  ("top1", "number", "interval"),
  [
    (1.0, 4, " (95% interval 51% to 100%)"),
    (0.0, 4, " (95% interval 0% to 49%)"),
    (0.5, 100, " (95% interval 40% to 60%)"),
    (0.5, 1000, ""),
  ],
)
def test_few_images_get_an_interval(top1, number, interval):
  first, *_ = results.summary("run", RESULT | {"top1": top1, "num_test": number}).splitlines()
  assert first == f"Top-1 accuracy {top1:.2%} on {number:,} images{interval} after 5,000 steps."


def test_the_summary_has_the_means_over_classes_where_the_result_does():
  means = {"balanced_accuracy": 0.87654, "macro_f1": 0.76543}
  _, second, *_ = results.summary("run", RESULT | means).splitlines()
  assert second == "Balanced accuracy 87.65%, macro F1 76.54%."
  assert "macro F1" not in results.summary("run", RESULT)  # of an earlier version


def names(lines):
  return [line.split()[0] for line in lines]


def test_the_summary_lists_what_is_there(finished_folder):
  for name in ("confusion.png", "curves.png", "per_class.csv"):
    (finished_folder / name).unlink()
  _, _, *files, last = results.summary(str(finished_folder), RESULT).splitlines()
  assert names(files) == [
    *("model.npz", "augmented.png", "predictions.png", "confusion.csv", "metrics.jsonl")
  ]
  assert last == "Missing (not written, or deleted since): curves.png, per_class.csv."


def test_the_summary_of_weights_that_were_chosen_on_val():
  chosen = {"best_step": 3000, "num_val": 100, "val_top1": 0.5}
  first, *_ = results.summary("run", RESULT | chosen).splitlines()
  assert first == (
    "Top-1 accuracy 98.77% on 1,234 test images after step 3,000, the best evaluation of 5,000 "
    "steps (top-1 on the 100 validation images: 50.00%)."
  )


def test_the_summary_tells_what_is_special():
  special = {"best_step": 3000, "left_out": {"small images": 1500}, "warnings": ["It is old."]}
  first, left_out, warning, *_ = results.summary("run", RESULT | special).splitlines()
  assert first.endswith("after step 3,000, the best evaluation of 5,000 steps.")
  assert (left_out, warning) == ("Left out: 1,500 small images.", "warning: It is old.")


NAMES = [
  "price_$5_to_$9",
  "$$",
  "_x",
  "猫",
  "\ud83d",
  "a\nb",
  "%d {x} \\frac{",
  "x" * 90,
  "",
  "\x00",
]


def test_every_picture_takes_any_name(tmp_path, saved_figures):
  shown = ["price_$5_to_$9", "$$", "_x", "猫", r"\ud83d", "a b", r"%d {x} \frac{"]
  per_class.draw(tmp_path, NAMES, np.arange(10), np.arange(10), "")
  names = [t.get_text() for t in saved_figures[0].axes[0].get_xticklabels()]
  assert names == [*shown, "x" * 23 + "…", "", r"\x00"]
  title = " ".join(NAMES)
  plots.sheet(np.zeros((10, 8, 8, 3), np.uint8), NAMES, tmp_path / "2.png", title)
  row = {"step": 1, "kind": "eval", "loss": 2.5, "top1": 0.125}
  (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
  metrics_log.draw(tmp_path / "m.jsonl", tmp_path / "3.png", title, "test images")
  captions = [axes.get_title() for axes in saved_figures[1].axes[:10]]
  lines = ["a\nb" if name == "a b" else name for name in shown]  # a caption may have several
  assert captions == [*lines, "x" * 18 + "\n" + "…", "", r"\x00"]
  assert not any(t.get_parse_math() for f in saved_figures for t in f.findobj(Text))
