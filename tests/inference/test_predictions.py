"""Tests of bit_jax.inference.predictions."""

import csv
import io
import json

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from bit_jax.inference import inputs, outputs, predictions
from bit_jax.runtime import errors

NAMES = ("cat", "dog, large", "7")


def computed(logits, indices=()):
  """Returns what a network computes, with the softmax of these logits."""
  softmax = scipy.special.softmax(logits.astype(np.float64), axis=1).astype(np.float32)
  return outputs.Outputs(np.array(indices, int), logits, softmax, logits)


@given(
  hnp.arrays(
    np.float32,
    st.sampled_from([(1, 1), (1, 9), (4, 5)]),
    elements=st.sampled_from([-90.0, -1.0, 0.0, 0.5, 80.0]),
  ),
  st.integers(1, 12),
)
def test_top_is_a_stable_order_of_the_softmax(logits, count):
  labels, probabilities = predictions.top(computed(logits), count)
  expected = np.argsort(-logits, axis=1, kind="stable")[:, :count]
  np.testing.assert_array_equal(labels, expected)
  softmax = scipy.special.softmax(logits.astype(np.float64), axis=1)
  np.testing.assert_allclose(probabilities, np.take_along_axis(softmax, expected, 1), 1e-5, 1e-30)


def test_outputs_that_are_not_finite_are_an_error():
  with pytest.raises(errors.UserError, match="not finite"):
    predictions.top(computed(np.array([[0, np.nan]], np.float32)), 1)


class Batches:
  """Stands for a network: the logits of image i have their maximum at class i % 3."""

  size = 1  # pixels

  def __init__(self, batch_size):
    self.batch_size = batch_size

  def run(self, source, unreadable, image_size=None, report=None):
    for start in range(0, len(source), self.batch_size):
      indices = np.arange(start, min(start + self.batch_size, len(source)))
      readable = []
      for i in indices.tolist():
        try:
          source.read(i)
          readable.append(i)
        except errors.UserError as e:
          unreadable[i] = str(e)
      report(len(indices))
      logits = np.eye(3, dtype=np.float32)[np.array(readable, int) % 3]
      yield computed(logits, readable)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("bad", [(), (0,), (1, 2), (5, 6), range(7)])
def test_predictions_come_in_order_with_the_errors_in_their_places(tmp_path, size, bad):
  paths = [str(tmp_path / f"{i}") for i in range(7)]
  for i in set(range(7)) - set(bad):
    Image.new("RGB", (2, 2)).save(paths[i], "png")
  counts = []
  found = list(predictions.predict(Batches(size), inputs.Files(tuple(paths)), 2, counts.append))
  assert [p.path for p in found] == paths
  assert [i for i, p in enumerate(found) if p.error] == list(bad)
  assert all(f"{i} can't be opened" in found[i].error for i in bad)
  assert [p.labels[0] for p in found if not p.error] == [i % 3 for i in range(7) if i not in bad]
  assert sum(counts) == 7


CAT = predictions.Prediction("a.jpg", (0, 1), (0.97251, 0.0274))
STRANGE = predictions.Prediction('b "c",\n\udcff é.jpg', (1, 2), (1.0, float(np.float32(1e-9))))
BROKEN = predictions.Prediction("d.jpg", error="The image d.jpg is truncated.")


def test_text():
  assert predictions.as_text(CAT, NAMES) == "a.jpg\n   97.25%  cat\n    2.74%  dog, large\n"
  assert predictions.as_text(STRANGE, NAMES).startswith('b "c",\\n\udcff é.jpg\n  100.00%  dog')
  assert predictions.as_text(BROKEN, NAMES) == ""
  bold = predictions.as_text(CAT, NAMES, bold=True)
  assert bold.startswith("\033[1ma.jpg\033[0m\n")


def test_text_of_one_class_is_aligned():
  files = inputs.Files(("a.jpg", "long name.jpg", "x" * 300))
  width = predictions.width(files)
  shown = [
    predictions.as_text(predictions.Prediction(path, (0,), (0.5,)), NAMES, width=width, bold=bold)
    for path in files.paths
    for bold in (False, True)
  ]
  assert shown[0] == "a.jpg          50.00%  cat\n"
  assert shown[2] == "long name.jpg  50.00%  cat\n"
  assert shown[4] == f"{'x' * 300}  50.00%  cat\n"
  assert [s.replace("\033[1m", "").replace("\033[0m", "") for s in shown[1::2]] == shown[::2]


def test_json_is_read_back():
  lines = "".join(predictions.as_json(p, NAMES) for p in (CAT, STRANGE, BROKEN))
  assert lines.isascii()
  cat, strange, broken = map(json.loads, lines.splitlines())
  assert cat == {
    "path": "a.jpg",
    "predictions": [
      {"class": "cat", "label": 0, "probability": 0.97251},
      {"class": "dog, large", "label": 1, "probability": 0.0274},
    ],
  }
  assert strange["path"] == STRANGE.path
  assert np.float32(strange["predictions"][1]["probability"]) == np.float32(1e-9)
  assert broken == {"path": "d.jpg", "error": "The image d.jpg is truncated."}


def test_csv_is_read_back():
  text = predictions.CSV_HEADER + "".join(
    predictions.as_csv(p, NAMES) for p in (CAT, BROKEN, STRANGE)
  )
  rows = list(csv.DictReader(io.StringIO(text, newline="")))
  assert [list(row.values()) for row in rows[:2]] == [
    ["a.jpg", "1", "0", "cat", "0.97251"],
    ["a.jpg", "2", "1", "dog, large", "0.0274"],
  ]
  assert [row["path"] for row in rows[2:]] == [STRANGE.path] * 2
  assert list(rows[0]) == ["path", "rank", "label", "class", "probability"]


@given(st.integers(1, 1000))
def test_a_sheet_has_a_bounded_number_of_images_evenly_spaced(count):
  places = sorted(predictions.for_sheet(count))
  assert len(places) == min(count, predictions.SHEET)
  assert (places[0], places[-1]) == (0, count - 1) or count == 1
  gaps = np.diff(places)
  assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_a_sheet(tmp_path, saved_figures):
  Image.new("RGB", (30, 10), (255, 0, 0)).save(tmp_path / "wide.png")
  found = [
    predictions.Prediction(str(tmp_path / "wide.png"), (1,), (0.876,)),
    predictions.Prediction(str(tmp_path / "gone.png"), (0,), (0.5,)),
  ]
  picture = tmp_path / "sheet.png"
  predictions.draw(found, NAMES, picture, "a title")
  (figure,) = saved_figures
  first, second = figure.axes
  assert [first.get_title(), second.get_title()] == [
    "88% dog, large\nwide.png",
    "50% cat\ngone.png",
  ]
  pixels = first.images[0].get_array()
  assert (pixels[80, 80] == [255, 0, 0]).all()
  assert (pixels[10, 80] == 255).all()  # the shape is kept
  assert (second.images[0].get_array() == 255).all()
  assert picture.read_bytes().startswith(b"\x89PNG")
