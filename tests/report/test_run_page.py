"""The report of a run: its values are those of the files, whatever is in them or missing."""

import base64
import io
import itertools
import json
import math
import pathlib
import shutil

import html_check
import numpy as np
import pytest
import report_runs
from PIL import Image, PngImagePlugin
from sklearn import metrics as sklearn_metrics

from bit_jax.report import pictures, run_files, run_page, values
from bit_jax.runs import interval, per_class
from bit_jax.runtime import errors, plots

EARLIER = pathlib.Path(__file__).parents[1] / "earlier_runs" / "0.1"


def report(folder, tmp_path):
  """Returns the text of a folder's report, and what it holds."""
  text = run_page.write(folder, tmp_path / "page.html").read_text("utf-8")
  return text, html_check.Reader(text)


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
  return report(made.folder, tmp_path_factory.mktemp("page"))[1]


def shown(name):
  return values.plain(name, 60)


def figures(page):
  """Returns {label: value} of the figures."""
  texts = [(tag, text) for tag, text in page.texts if tag in ("dt", "b")]
  pairs = itertools.pairwise(texts)
  return {a: b for (tag, a), (then, b) in pairs if (tag, then) == ("dt", "b")}


def test_the_figures_are_those_of_the_result(page, made):
  result = json.loads((made.folder / "result.json").read_text())
  found = figures(page)
  assert found["Top-1 accuracy"] == f"{result['top1']:.2%}"
  assert result["top1"] == np.mean(made.labels == made.predictions)
  assert found["Balanced accuracy"] == f"{result['balanced_accuracy']:.2%}"
  assert found["Macro F1"] == f"{result['macro_f1']:.2%}"
  assert found["Test loss"] == "1.5"
  assert (found["Test images"], found["Training images"], found["Steps"]) == ("40", "20", "100")
  assert found["Images per second"] == "272"
  low, high = interval.wilson(result["top1"], 40)
  assert f"95% interval {low:.0%} to {high:.0%}" in page.text
  assert ("h1", f"cifar10: top-1 {result['top1']:.2%}") in page.texts
  assert "Left out: 3 small <images>." in page.text
  assert "The data are <b>old</b>." in page.text


def test_each_class_has_its_row(page, made):
  head, *rows = page.tables["Accuracy of each class"]
  assert head == [
    *("class", "training images", "test images", "accuracy, %", "precision, %"),
    "most often predicted as",
  ]
  precision, recall, _, support = sklearn_metrics.precision_recall_fscore_support(
    made.labels, made.predictions, labels=range(4), zero_division=np.nan
  )
  matrix = sklearn_metrics.confusion_matrix(made.labels, made.predictions, labels=range(4))
  np.fill_diagonal(matrix, 0)
  for i, row in enumerate(rows):
    mostly = matrix[i].argmax()
    assert row == [
      *(shown(report_runs.NAMES[i]), "5", str(support[i])),
      *("" if math.isnan(share) else f"{100 * share:.1f}" for share in (recall[i], precision[i])),
      f"{shown(report_runs.NAMES[mostly])} ({matrix[i, mostly]})" if matrix[i].any() else "",
    ]
  assert len(rows) == 4


def test_the_confusion_matrix_and_its_largest_entries(page, made):
  matrix = sklearn_metrics.confusion_matrix(made.labels, made.predictions, labels=range(4))
  head, *rows = page.tables["Confusion matrix"]
  assert head == ["class", *map(shown, report_runs.NAMES)]
  assert rows == [
    [shown(name), *(str(n) if n else "" for n in row)]
    for name, row in zip(report_runs.NAMES, matrix.tolist(), strict=True)
  ]
  expected = per_class.largest_confusions(made.labels, made.predictions, 12).tolist()
  _, *pairs = page.tables["The most frequent confusions"]
  assert pairs == [
    [
      shown(report_runs.NAMES[a]),
      shown(report_runs.NAMES[b]),
      str(n),
      f"{100 * n / matrix[a].sum():.1f}",
    ]
    for a, b, n in expected
  ]


def test_the_mistakes_are_listed_with_their_images(page, made):
  wrong = np.flatnonzero(made.labels != made.predictions)
  order = wrong[np.argsort(-made.confidence[wrong], kind="stable")][:24]
  listed = [a["alt"] for tag, a in page.tags if tag == "img" and " labelled " in a["alt"]]
  assert listed == [
    f"Test image labelled {shown(report_runs.NAMES[made.labels[i]])}, predicted as "
    f"{shown(report_runs.NAMES[made.predictions[i]])}"
    for i in order
  ]
  sources = [a["src"] for tag, a in page.tags if tag == "img" and " labelled " in a["alt"]]
  assert [grey(source) for source in sources] == pytest.approx(6 * order, abs=2)
  for i in order:
    assert f"{100 * round(float(made.confidence[i]), 4):.1f}%" in page.text
    assert report_runs.PATHS[i].rpartition("/")[2] in page.text
  assert "many of these are wrong labels" in page.text


def grey(source):
  kind, _, data = source.partition(";base64,")
  assert kind == "data:image/jpeg"
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).mean()


def test_images_before_and_after_augmentation_are_pairs(page):
  images = [a for tag, a in page.tags if tag == "img"]
  before = [a for a in images if a["alt"].endswith(", as read")]
  after = [a for a in images if a["alt"] == "the same image, augmented"]
  assert len(before) == len(after) == 16
  greys = [[grey(a["src"]) for a in part] for part in (before, after)]
  assert greys[0] == pytest.approx(greys[1], abs=2)  # augmentation moves pixels of one colour
  assert len(set(np.round(greys[0]))) == 16


def test_the_rule_is_compared(page):
  head, *rows = page.tables["The rule and this run"]
  assert head == ["field", "this run", "the rule", "difference"]
  fields = {row[0]: row[1:] for row in rows}
  assert fields["Batch size"] == ["64", "512", "differs"]
  assert fields["Learning rate"] == ["0.003", "0.003", ""]
  assert fields["Steps"] == ["100", "500", "differs"]
  assert fields["Rate x 0.1 after steps"] == [
    *("40, 60, 80", "200, 300, 400", "same share of the steps")
  ]
  assert fields["MixUp alpha"] == ["0.1", "0", "differs"]
  assert fields["Crop, pixels"] == ["48", "128", "differs"]
  assert "the small regime, for 20 training images" in page.text


def test_input_wait_is_weighted_by_time(made):
  rows = [row for row in made.rows if row["kind"] == "train"]
  seconds = np.array([5 / row["images_per_second"] for row in rows])
  waited = seconds * [row["input_wait_share"] for row in rows]
  assert run_page.input_wait(rows) == pytest.approx(waited.sum() / seconds.sum())
  assert run_page.input_wait([]) is None


def test_curves_say_their_ends(page):
  labels = [a["aria-label"] for tag, a in page.tags if tag == "svg" and "aria-label" in a]
  loss, accuracy, rate, speed, wait = labels
  assert "test images: 0.15 at step 20, 0.03 at step 100" in loss
  assert "training images, as augmented: 2.5% at step 5, 50% at step 100" in accuracy
  assert "test images: 16% at step 20, 80% at step 100" in accuracy
  assert "0.003 at step 5, 3e-5 at step 100" in rate
  assert "105 at step 5, 200 at step 100" in speed
  assert "0.5% at step 5, 10% at step 100" in wait


def test_it_needs_no_other_file(page, made, tmp_path):
  text, _ = report(made.folder, tmp_path)
  assert "http://" not in text
  assert "https://" not in text
  assert all(source.startswith("data:image/") for source in page.sources())
  assert [tag for tag, _ in page.tags].count("script") == 1


@pytest.mark.parametrize("name", ["finished", "stopped"])
def test_runs_of_version_0_1(tmp_path, name):
  _, page = report(EARLIER / name, tmp_path)
  assert "mistakes.csv is not there" in page.text
  assert sum(s.startswith("data:image/png") for s in page.sources()) == 2 - (name == "stopped")
  if name == "finished":
    assert "python -m bit_jax.evaluate RUN" in page.text
    assert figures(page)["Top-1 accuracy"] == "100.00%"
    assert page.tables["Accuracy of each class"][1:] == [
      [colour, str(n), "4", "100.0", "100.0", ""]
      for colour, n in (("red", 14), ("green", 13), ("blue", 13))
    ]
    assert "There are none: every test image was predicted as its label." in page.text
  else:
    assert ("h1", "npz: step 21 of 40") in page.texts
    assert figures(page)["Top-1 so far"] == "91.67%"
    assert "per_class.csv is not there: it is written when a run ends." in page.text
    assert "This run has no result yet (step 21 of 40)" in page.text


FILES = ["config.json", "environment.json", "result.json", "metrics.jsonl", "per_class.csv"]
FILES += ["confusion.csv", "mistakes.csv", "augmented.png", "predictions.png", "mistakes.png"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00{", b"[1]", b"a,b\n1\n"])
def test_what_is_missing_or_damaged_is_said(made, tmp_path, name, content):
  folder = shutil.copytree(made.folder, tmp_path / "run")
  (folder / name).unlink()
  if content is not None:
    (folder / name).write_bytes(content)
  _, page = report(folder, tmp_path)
  expected = "is not there" if content is None else "is damaged"
  assert (
    f"{name} {expected}" in page.text
    or (name == "result.json" and content is None)
    or (name == "metrics.jsonl" and f"{name} is" in page.text)
  )
  assert len([t for tag, t in page.texts if tag == "h2"]) == 9


@pytest.mark.parametrize("file", ["config.json", "environment.json", "result.json"])
@pytest.mark.parametrize("value", ["\ud800 \udcff<i>", 10**25, math.nan, [[{}]], -1, "x" * 10**6])
def test_whatever_is_in_the_fields(made, tmp_path, file, value):
  pictures = shutil.ignore_patterns("*.png")
  folder = shutil.copytree(made.folder, tmp_path / "run", ignore=pictures)
  content = json.loads((folder / file).read_text())
  changed = [dict.fromkeys(content, value)] + [content | {name: value} for name in content]
  for fields in changed if len(str(value)) < 100 else changed[:1]:
    (folder / file).write_text(json.dumps(fields | {"<i>": value}))
    text, _ = report(folder, tmp_path)
    assert "<i>" not in text
    assert len(text) < 2_000_000


@pytest.fixture
def large(made, tmp_path):
  """A function that returns a run folder with another number of classes."""

  def of(count):
    folder = shutil.copytree(made.folder, tmp_path / f"{count}")
    names = [f"<{'n' * 200} {i}" for i in range(count)]
    labels = np.arange(3 * count, dtype=np.int32) % count
    shift = np.random.default_rng(0).integers(0, 3, 3 * count)
    predictions = ((labels + shift) % count).astype(np.int32)
    per_class.write(folder, names, labels, predictions, None, lambda _: None)
    return folder, names, labels, predictions

  return of


def test_a_thousand_classes(large, tmp_path):
  folder, names, labels, predictions = large(1000)
  text, page = report(folder, tmp_path)
  assert len(text) < 2_000_000
  _, *rows = page.tables["Accuracy of each class"]
  accuracy = np.bincount(labels[labels == predictions], minlength=1000) / 3
  assert [row[:4] for row in rows] == [
    [shown(names[i]), "", "3", f"{100 * accuracy[i]:.1f}"] for i in range(1000)
  ]
  assert "Each cell is 4 x 4 classes." in page.text


def test_more_classes_than_a_table_can_have(large, tmp_path):
  folder, names, labels, predictions = large(5000)
  text, page = report(folder, tmp_path)
  assert len(text) < 2_000_000
  _, *rows = page.tables["Accuracy of each class"]
  wrong = np.flatnonzero(np.bincount(labels[labels == predictions], minlength=5000) == 0)
  assert [row[0] for row in rows] == [shown(names[i]) for i in wrong[:1000]]
  assert "per_class.csv has all 5,000" in page.text
  assert "Confusion matrix" not in page.tables
  assert len(page.tables["The most frequent confusions"]) == 13


def test_a_matrix_of_any_size_shows_each_pair():
  counts = np.diag([4, 0, 9]) + np.array([[0, 12, 0], [0, 0, 0], [0, 0, 0]])
  source, side = pictures.matrix(counts)
  pixels = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGBA")
  opacity = np.asarray(pixels)[..., 3] / 255
  expected = np.sqrt([[0.25, 0.75, 0], [0, 0, 0], [0, 0, 1]])
  assert side == 1
  np.testing.assert_allclose(opacity, expected, atol=1 / 15)
  assert (opacity >= expected - 1e-3).all()  # a rare confusion is seen
  assert np.asarray(pixels)[0, 0, :3].tolist() == [0, 114, 178]
  assert np.asarray(pixels)[0, 1, :3].tolist() == [213, 94, 0]
  source, side = pictures.matrix(np.eye(501, dtype=int))
  assert side == 3
  assert Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size == (167, 167)


def test_a_sheet_says_where_its_images_are(tmp_path):
  images = [np.full((4 + i, 9 - i, 3), 50 * i, np.uint8) for i in range(5)]
  captions = ["a", "!b (c)", "two\nlines", "<i>", "x" * 500]
  plots.sheet(images, captions, tmp_path / "a.png", "Title", columns=3)
  tiles = pictures.tiles(tmp_path / "a.png")
  assert [grey(tile.source) for tile in tiles] == pytest.approx([0, 50, 100, 150, 200], abs=2)
  assert [tile.caption for tile in tiles] == ["a", "b (c)", "two lines", "<i>", "x" * 200]
  assert [tile.is_mistake for tile in tiles] == [False, True, False, False, False]


def test_a_large_picture_is_made_smaller(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), dtype=np.uint8)
  Image.fromarray(noise).save(tmp_path / "a.png")
  source = pictures.whole(tmp_path / "a.png")
  assert source.startswith("data:image/jpeg")
  assert len(source) < 1_500_000


def test_wilson_is_that_of_scipy():
  from scipy import stats

  for number in (1, 7, 40, 999):
    for right in {0, 1, number // 3, number}:
      expected = stats.binomtest(right, number).proportion_ci(method="wilson")
      assert interval.wilson(right / number, number) == pytest.approx(tuple(expected), abs=1e-9)


def test_folders_that_are_no_run(tmp_path):
  with pytest.raises(errors.UserError, match="none not found: give the folder of a run"):
    run_files.read(tmp_path / "none")
  with pytest.raises(errors.UserError, match="holds none of the files of a run"):
    run_files.read(tmp_path)


def sheet_with(tiles, path, kind="PNG"):
  info = PngImagePlugin.PngInfo()
  info.add_text(plots.TILES, tiles)
  Image.new("RGB", (16, 16)).save(path, kind, pnginfo=info)
  return path


@pytest.mark.parametrize(
  "tiles",
  [
    "[" * 100_000,
    "3",
    "null",
    '[{"box": [0, 0, 1e999, 4], "caption": ""}]',
    '[{"box": {}}]',
    "[[]]",
  ],
)
def test_a_sheet_that_says_nonsense_is_damaged(tmp_path, tiles):
  sheet = run_page._sheet(sheet_with(tiles, tmp_path / "sheet.png"))
  assert sheet == run_page.Sheet(fault="sheet.png is damaged.")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TIFF", "ICO"])
def test_only_formats_of_runs_are_opened(tmp_path, kind):
  path = sheet_with("[]", tmp_path / "sheet.png", kind)
  assert run_page._sheet(path).fault == "sheet.png is damaged."
