"""Tests of bit_jax.data.check: problems, report and contact_sheet."""

import csv
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from bit_jax.data.check import contact_sheet, problems
from bit_jax.data.check import report as output
from bit_jax.data.sources import folder
from bit_jax.runtime import errors, plots

WRITE = contact_sheet.write
RANDOM = np.random.Generator(np.random.Philox(3))


def noise(height=60, width=80):
  return Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))


def fill(root, counts, size=(60, 80)):
  for name, count in counts.items():
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      noise(*size).save(root / name / f"{i}.png")
  return root


@pytest.fixture
def root(tmp_path):
  return fill(tmp_path / "set", {"train/a": 4, "train/b": 8, "test/a": 2, "test/b": 2})


@pytest.fixture
def real_sheet(drawn, monkeypatch):
  monkeypatch.setattr(contact_sheet, "write", WRITE)
  return WRITE


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
  """Takes note of what would be drawn, which takes two seconds."""
  written = []

  def write(report, picture, **options):
    written.append((contact_sheet.choose(report), options))

  monkeypatch.setattr(contact_sheet, "write", write)
  return written


def found(root):
  report = problems.check(folder.find(str(root)))
  return report, [(p.kind, p.path, p.detail) for p in report.problems]


def test_nothing_wrong(root, tmp_path):
  report, listed = found(root)
  assert listed == []
  assert not report.stops
  assert report.counts == {"train": {"a": 4, "b": 8}, "test": {"a": 2, "b": 2}}
  assert (report.image_size, set(report.sizes)) == ((60, 80), {(60, 80)})
  assert len(report.split.train) == 12
  text = output.render(report)
  for expected in (
    "16 images in 2 classes",
    "2 : 1, from b (8) to a (4)",
    "60 x 80 pixels",
    "small regime (12 training images): 500 steps, no MixUp; resize 160 -> crop 128",
    "No problems found.",
  ):
    assert expected in text


@pytest.mark.parametrize(
  ("data", "kind", "detail"),
  [
    (b"", "unreadable", "is empty (0 bytes)"),
    (b"text", "unreadable", "is not a JPEG, PNG, BMP, GIF or WebP image"),
    (None, "damaged", "is truncated"),
  ],
)
def test_what_cannot_be_decoded_stops(root, tmp_path, data, kind, detail):
  path = root / "train" / "a" / "1.png"
  path.write_bytes(path.read_bytes()[:-5000] if data is None else data)
  report, listed = found(root)
  assert listed == [(kind, "train/a/1.png", detail)]
  assert report.stops
  assert "on_bad_image=skip" in output.render(report)


def test_empty_classes_stop_and_the_rest_is_still_told(root, tmp_path):
  (root / "train" / "c").mkdir()
  shutil.copy(root / "train" / "a" / "0.png", root / "test" / "a" / "x.png")
  report, listed = found(root)
  assert listed == [
    ("empty class", "train/c", ""),
    ("leak", "test/a/x.png", "same bytes as train/a/0.png"),
  ]
  assert report.stops
  assert len(report.split.train) == 12


def test_copies(root, tmp_path):
  image = Image.open(root / "train" / "a" / "0.png")
  image.save(root / "train" / "a" / "same.bmp")
  image.save(root / "train" / "b" / "other.png")
  image.save(root / "test" / "b" / "leak.bmp")
  report, listed = found(root)
  assert listed == [
    ("leak", "test/b/leak.bmp", "same pixels as train/a/0.png"),
    ("contradiction", "test/b/leak.bmp", "b, but train/a/0.png is a"),
    ("contradiction", "train/b/other.png", "b, but train/a/0.png is a"),
    ("duplicate", "train/a/same.bmp", "same pixels as train/a/0.png"),
    ("duplicate", "train/b/other.png", "same bytes as train/a/0.png"),
  ]
  assert not report.stops


def test_of_many_copies_each_is_told_once_of_each_kind(root, tmp_path):
  first = root / "train" / "a" / "0.png"
  copies = ("train/a/y0", "train/a/y1", "train/b/y0", "train/b/y1", "test/a/y0", "test/b/y0")
  for name in copies:
    shutil.copy(first, root / f"{name}.png")
  same, other = "same bytes as train/a/0.png", "b, but train/a/0.png is a"
  assert found(root)[1] == [
    ("leak", "test/a/y0.png", same),
    ("leak", "test/b/y0.png", same),
    ("contradiction", "test/a/y0.png", "a, but train/b/y0.png is b"),
    ("contradiction", "test/b/y0.png", other),
    ("contradiction", "train/b/y0.png", other),
    ("contradiction", "train/b/y1.png", other),
    ("duplicate", "train/a/y0.png", same),
    ("duplicate", "train/a/y1.png", same),
    ("duplicate", "train/b/y0.png", same),
    ("duplicate", "train/b/y1.png", same),
  ]


def test_images_of_other_sizes_are_no_copies(root, tmp_path):
  Image.new("RGB", (40, 90)).save(root / "train" / "a" / "x.png")
  Image.new("RGB", (90, 40)).save(root / "train" / "a" / "y.png")
  assert found(root)[1] == []


def test_a_split_that_is_drawn_can_leak(tmp_path):
  root = fill(tmp_path / "set", {"a": 5, "b": 5})
  report, _ = found(root)
  assert report.counts == {"train": {"a": 4, "b": 4}, "test": {"a": 1, "b": 1}}
  for i in range(5):
    shutil.copy(root / "a" / f"{i}.png", root / "a" / f"copy{i}.png")
  kinds = [kind for kind, _, _ in found(root)[1]]
  assert len(kinds) == 5
  assert "leak" in kinds


def test_odd_sizes(root, tmp_path):
  noise(29, 30).save(root / "train" / "a" / "tiny.png")
  noise(20, 100).save(root / "train" / "a" / "both.png")
  noise(40, 161).save(root / "train" / "a" / "long.png")
  noise(40, 160).save(root / "train" / "a" / "just.png")
  assert found(root)[1] == [
    ("small", "train/a/both.png", "20 x 100 pixels"),
    ("small", "train/a/tiny.png", "29 x 30 pixels"),
    ("elongated", "train/a/both.png", "20 x 100 pixels"),
    ("elongated", "train/a/long.png", "40 x 161 pixels"),
  ]


@pytest.mark.parametrize("size", [(8, 8), (20, 100)])
def test_sizes_that_are_usual_are_not_odd(tmp_path, size):
  assert found(fill(tmp_path / "set", {"a": 3, "b": 3}, size))[1] == []


def test_a_tenth_of_the_median_is_small(tmp_path):
  root = fill(tmp_path / "set", {"a": 3, "b": 3}, (400, 400))
  noise(39, 39).save(root / "a" / "x.png")
  noise(40, 40).save(root / "a" / "y.png")
  assert [p for _, p, _ in found(root)[1]] == ["a/x.png"]


def test_what_is_left_out_is_listed(root, tmp_path):
  noise().save(root / "cover.png")
  (root / "README.md").write_text("x")
  report, listed = found(root)
  assert listed == [("no class", "cover.png", ""), ("ignored", "README.md", "")]
  assert not report.stops


def test_files_that_a_csv_names_in_vain(root, tmp_path):
  rows = [f"train/{c}/{i}.png,{c}" for c in "ab" for i in range(3)]
  (root / "list.csv").write_text("\n".join([*rows, "none.png,a"]))
  report, listed = found(root / "list.csv")
  assert listed == [("missing", "none.png", "line 7")]
  shown = output.render(report)
  assert shown.startswith(f"{root}/list.csv: 6 images in 2 classes")
  assert report.stops
  assert len(report.split.train) == 4
  assert "no header: the first column is read as paths, the second as labels." in shown


def test_a_csv_none_of_whose_files_is_there(root, tmp_path):
  (root / "list.csv").write_text("none.png,a\nnor/this.png,b\n")
  report, listed = found(root / "list.csv")
  assert listed == [("missing", "none.png", "line 1"), ("missing", "nor/this.png", "line 2")]
  assert report.stops
  assert report.faults == ()


@pytest.mark.parametrize(
  ("folders", "said", "nothing_wrong"),
  [
    (
      ("training_set/a", "training_set/b", "test_set/a", "test_set/b"),
      "training_set as train, test_set as",
      True,
    ),
    (("2750/a", "2750/b"), "the folder 2750 is read", True),
    (("a", "b", "b/more"), "Class b combines 1 subfolder (more).", False),
    (("train", "test", "bus"), "Read as classes, despite", False),
    (("x/a", "x/b", "y/a", "y/b"), "x, y have only folders (x/a, x/b, y/a, y/b)", False),
  ],
)
def test_how_folders_are_read_is_said(tmp_path, folders, said, nothing_wrong):
  report, _ = found(fill(tmp_path / "set", dict.fromkeys(folders, 2), (8, 8)))
  text = output.render(report)
  assert said in text
  assert ("No problems found." in text) == nothing_wrong


def test_warnings_of_a_csv_are_said(root, tmp_path):
  rows = [f"train/{c}/{i}.png,{c},{i}" for c in "ab" for i in range(3)]
  (root / "list.csv").write_text("\n".join(["path,label,fold", *rows]))
  report, listed = found(root / "list.csv")
  assert listed == []
  text = output.render(report)
  assert "Warnings:\n  The column fold of list.csv may be a split" in text
  assert "No problems found." not in text
  assert not report.stops


def test_warnings_on_the_split_are_said(root):
  for path in (root / "test" / "a").iterdir():
    path.unlink()
  (root / "test" / "a").rmdir()
  report, _ = found(root)
  assert report.warnings == ("Classes without evaluated images: a.",)
  assert "Warnings:\n  Classes without evaluated images: a." in output.render(report)
  assert not report.stops


@pytest.mark.parametrize(
  ("counts", "message"),
  [
    ({}, "no class folders"),
    ({"a": 3}, "one class: a"),
    ({"a": 1, "b": 1}, "No class in"),
    ({"train/a": 3, "train/b": 3, "test/c": 1}, "lacks 1 class of another part: c"),
  ],
)
def test_what_stops_a_run_is_reported_not_raised(tmp_path, counts, message):
  (tmp_path / "set").mkdir()
  report, _ = found(fill(tmp_path / "set", counts))
  assert any(message in fault for fault in report.faults)
  assert report.stops
  assert message in output.render(report)


def test_main_returns_the_status_and_writes_everything(root, tmp_path, capsys):
  assert output.main(str(root), str(tmp_path / "out")) == 0
  command = f"python -m bit_jax.train --config=configs/folder.py:path={root}"
  assert capsys.readouterr().out.splitlines()[-1].strip() == command
  for i in range(15):
    (root / "train" / "a" / f"Löwe {i}.jpg").write_text("x")
  assert output.main(str(root), str(tmp_path / "out")) == 1
  printed = capsys.readouterr().out
  assert "and 5 more in problems.csv" in printed
  assert "bit_jax.train" not in printed
  with open(tmp_path / "out" / "problems.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 15
  assert {r["file"] for r in rows} == {f"train/a/Löwe {i}.jpg" for i in range(15)}


def test_sentences_are_rows_of_problems_too(root, tmp_path, capsys):
  (tmp_path / "b c").mkdir()
  listed = tmp_path / "b c" / "list.csv"
  names = [str(path) for path in sorted((root / "train").rglob("*.*"))]
  rows = [
    f"{name},{os.path.basename(os.path.dirname(name))},{i % 5}" for i, name in enumerate(names)
  ]
  listed.write_text("\n".join(["path,label,fold", *rows]))
  assert output.main(str(listed), str(tmp_path / "out")) == 0
  assert capsys.readouterr().out.endswith(f" '--config=configs/folder.py:path={listed}'\n")
  with open(tmp_path / "out" / "problems.csv", encoding="utf-8", newline="") as file:
    (warning,) = (r for r in csv.DictReader(file) if r["problem"] == "warning")
  assert warning["detail"].startswith("The column fold of list.csv may be a split")
  listed.write_text("\n".join(f"{name},one" for name in names))
  assert output.main(str(listed), str(tmp_path / "out")) == 1
  with open(tmp_path / "out" / "problems.csv", encoding="utf-8", newline="") as file:
    (fault,) = (r for r in csv.DictReader(file) if r["problem"] == "stops a run")
  assert "one class: one" in fault["detail"]


@pytest.mark.slow
def test_the_picture_is_written(root, tmp_path, capsys, real_sheet):
  output.main(str(root), str(tmp_path / "out"))
  assert (
    f"Written to {tmp_path / 'out'}: problems.csv and contact_sheet.png" in capsys.readouterr().out
  )
  with Image.open(tmp_path / "out" / "contact_sheet.png") as picture:
    assert picture.width == 1320
  shutil.rmtree(root)
  (root / "a").mkdir(parents=True)
  output.main(str(root), str(tmp_path / "out"))
  assert not (tmp_path / "out" / "contact_sheet.png").exists()


def test_names_that_are_not_text(root, tmp_path, capsys):
  name = os.fsdecode(b"\xff.png")
  (root / "train" / "a" / name).write_text("x")
  assert output.main(str(root), str(tmp_path / "out")) == 1
  assert r"\udcff.png" in capsys.readouterr().out
  assert r"\udcff.png" in (tmp_path / "out" / "problems.csv").read_text()


def test_names_with_control_characters_are_escaped(tmp_path, capsys):
  root = fill(tmp_path / "set", {"a\nb": 2, "\x1b[31mc": 2})
  assert output.main(str(root), str(tmp_path / "out")) == 1
  lines = capsys.readouterr().out.splitlines()
  assert [line.split() for line in lines[3:5]] == [["\\x1b[31mc", "2"], ["a\\nb", "2"]]


def test_the_default_folder_is_named_after_the_images(root, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  output.main("set", None)
  (tmp_path / "other").mkdir()
  shutil.copytree(root, tmp_path / "other" / "set")
  output.main("other/set", None)
  folders = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/problems.csv"))
  assert len(folders) == 2  # of one name, and not one over the other
  assert all(re.fullmatch("check-set-[0-9a-f]{8}", name) for name in folders)
  said = capsys.readouterr().out
  assert all(f"runs/{name}" in said for name in folders)


def test_a_folder_that_cannot_be_made(root, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"file can't be created: .* --out"):
    output.main(str(root), str(tmp_path / "file"))


def test_the_table_of_many_classes_shows_the_ends(tmp_path):
  root = fill(tmp_path / "set", {f"class{i:02}": 2 + (i == 7) for i in range(23)}, (8, 8))
  text = output.render(found(root)[0])
  assert "... 3 more classes ..." in text
  assert text.index("class07") < text.index("class00")


@pytest.mark.parametrize(("num_classes", "expected"), [(2, [8, 8]), (5, [4, 3, 3, 3, 3]), (20, 16)])
def test_the_sheet_shows_classes_evenly(tmp_path, drawn, num_classes, expected):
  names = [f"c{i:02}" for i in range(num_classes)]
  output.main(str(fill(tmp_path / "set", dict.fromkeys(names, 9), (8, 8))), str(tmp_path / "out"))
  entries, options = drawn[0]
  captions = [entry.label for entry in entries]
  assert len({entry.path for entry in entries}) == 16
  assert options == {"resize": 160, "crop": 128}
  assert captions == sorted(captions)
  if num_classes == 20:
    assert len(set(captions)) == expected
    assert {"c00", "c19"} <= set(captions)
  else:
    assert [captions.count(n) for n in names] == expected


def test_the_sheet_pairs_images_with_what_training_makes_of_them(tmp_path, monkeypatch, real_sheet):
  sheets = []
  monkeypatch.setattr(plots, "sheet", lambda *args, **kwargs: sheets.append((args, kwargs)))
  root = fill(tmp_path / "set", dict.fromkeys("abcdefghi", 1), (96, 96))
  report, _ = found(root)
  real_sheet(report, tmp_path / "s.png", resize=96, crop=80)
  image = np.asarray(Image.open(root / "a" / "0.png"))
  (tiles, captions, _, title), options = sheets[0]
  assert options == {"columns": 8}
  assert tiles.shape == (32, 160, 160, 3)
  assert captions[:8] == list("abcdefgh")
  assert captions[8] == "a, augmented"
  assert captions[16:18] == ["i", ""]
  assert captions[24] == "i, augmented"
  assert "resized to 96, then cropped to 80" in title
  # A tile is the image enlarged to 160 pixels; an augmented one shows 80 of the 96, maybe mirrored.
  small = np.asarray(Image.fromarray(tiles[8]).resize((80, 80), Image.Resampling.BOX))
  crops = {
    image[t : t + 80, left : left + 80][:, ::step].tobytes()
    for t in range(17)
    for left in range(17)
    for step in (1, -1)
  }
  assert small.tobytes() in crops
  assert (tiles[17] == 255).all()


def test_a_tile_keeps_the_shape_of_its_image():
  tile = contact_sheet._tile(np.zeros((40, 80, 3), np.uint8))
  assert (tile[40:120] == 0).all()
  assert (tile[:40] == 255).all()
  assert (tile[120:] == 255).all()
