"""Tests of bit_jax.data.headers: whatever is read without Pillow is what Pillow reads."""

import io
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bit_jax.data import headers, images

MODES = {"JPEG": ["RGB", "L", "CMYK"], "PNG": ["RGB", "L", "LA", "RGBA", "P", "1", "I;16"]}
FILES = [(kind, mode) for kind, modes in MODES.items() for mode in modes]


def encoded(kind, mode="RGB", size=(7, 5), orientation=1, **options):
  image = Image.new(mode, size)
  if orientation > 1:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options["exif"] = exif
  content = io.BytesIO()
  image.save(content, kind, **options)
  return content.getvalue()


def by_pillow(path):
  """Returns (size, fault)."""
  try:
    return images.size(path), ""
  except images.Unreadable as e:
    return (-1, -1), str(e)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("headers") / "image"


@given(
  st.sampled_from(FILES),
  st.tuples(st.integers(1, 90), st.integers(1, 90)),
  st.integers(1, 8),
  st.fixed_dictionaries(
    {},
    optional={
      "progressive": st.booleans(),
      "optimize": st.booleans(),
      "comment": st.binary(max_size=3_000),
      "dpi": st.just((72, 72)),
      "icc_profile": st.binary(min_size=1, max_size=20),
      "restart_marker_blocks": st.integers(1, 3),
    },
  ),
)
def test_images_have_the_size_that_pillow_reads(file, kind_and_mode, size, orientation, options):
  file.write_bytes(encoded(*kind_and_mode, size, orientation, **options))
  found = headers.read(str(file))
  assert (found[:2], found.fault) == by_pillow(file)
  assert sorted(found[:2]) == sorted(size)


@given(
  st.sampled_from(FILES),
  st.booleans(),
  st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=3)), max_size=3),
  st.one_of(st.none(), st.integers(0, 700)),
)
def test_damaged_images_have_the_size_or_fault_that_pillow_reads(
  file, kind_and_mode, progressive, changes, end
):
  data = bytearray(encoded(*kind_and_mode, (64, 48), progressive=progressive))
  for start, replacement in changes:
    start %= len(data)
    data[start : start + len(replacement)] = replacement
  file.write_bytes(data[:end])
  found = headers.read(str(file))
  assert (found[:2], found.fault) == by_pillow(file)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_images_need_no_pillow(kind, mode):
  assert headers.plain_size(encoded(kind, mode, (7, 5))) == (5, 7)


def segment(marker, body):
  return b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body


def after_start(*segments):
  """Returns a JPEG of 7 x 5 pixels with further segments after its start."""
  data = encoded("JPEG")
  return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize(
  "data",
  [
    after_start(segment(0xFE, b"a comment")),
    after_start(segment(0xDD, b"\0\0")),
    after_start(segment(0xDB, b"\1" + bytes(range(1, 65)) + b"\2" + bytes(range(1, 65)))),
    encoded("JPEG", optimize=True),
    encoded("JPEG", progressive=True),
  ],
  ids=["comment", "restart interval", "two tables in one segment", "optimised", "progressive"],
)
def test_segments_that_say_nothing_about_the_size_are_skipped(file, data):
  file.write_bytes(data)
  assert headers.plain_size(data) == by_pillow(file)[0] == (5, 7)


@pytest.mark.parametrize(
  "data",
  [
    encoded("JPEG")[:2],
    encoded("JPEG")[:60],
    after_start(b"\xff\xfe\0\1"),
    after_start(segment(0xE1, b"Exif")),
    after_start(segment(0xDB, b"\x10" + bytes(128))),
    encoded("JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    encoded("JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x0e\x08"),
  ],
  ids=["start", "cut", "short segment", "EXIF", "16-bit table", "12 bits", "short frame"],
)
def test_jpegs_that_are_not_plain_have_the_size_or_fault_that_pillow_reads(file, data):
  assert headers.plain_size(data) is None
  file.write_bytes(data)
  found = headers.read(str(file))
  assert (found[:2], found.fault) == by_pillow(file)


def test_what_pillow_must_judge_is_left_to_it():
  assert headers.plain_size(encoded("JPEG", orientation=6)) is None
  assert headers.plain_size(encoded("PNG", orientation=6)) is None
  assert headers.plain_size(encoded("BMP")) is None
  assert headers.plain_size(b"") is None
  huge = bytearray(encoded("PNG", "L"))
  huge[16:24] = b"\x7f\xff\xff\xff" * 2
  assert headers.plain_size(bytes(huge)) is None


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["in threads", "one by one"])
def test_many_files_with_their_stamps(tmp_path, monkeypatch, seconds):
  monkeypatch.setattr(headers, "_SLOW", seconds)
  monkeypatch.setattr(headers, "_FIRST", 1)
  monkeypatch.setattr(headers, "_BLOCK", 3)
  (tmp_path / "a.jpg").write_bytes(encoded("JPEG", size=(30, 20)))
  (tmp_path / "b.png").write_bytes(encoded("PNG", size=(3, 2)))
  (tmp_path / "c.png").write_bytes(b"")
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
  os.utime(tmp_path / "b.png", ns=(5, 7))
  paths = ["a.jpg", "b.png", "c.png", "gone.png"]
  found = headers.read_all(tmp_path, paths)
  np.testing.assert_array_equal(found.sizes, [[20, 30], [2, 3], [-1, -1], [-1, -1]])
  assert found.stamps[1].tolist() == [(tmp_path / "b.png").stat().st_size, 7]
  assert found.stamps[2:, 0].tolist() == [0, -1]
  assert set(found.faults) == {2, 3}
  assert "empty" in found.faults[2]


def test_marks_differ_wherever_an_image_of_the_same_length_does(tmp_path):
  """Of a BMP, not every byte counts, but some of each eighth do."""
  pixels = np.zeros((96, 64, 3), np.uint8)
  paths = []
  for kind in ("bmp", "png"):  # without compression, the PNG has the same length as well
    for row in (None, *range(0, 96, 12)):
      changed = pixels.copy()
      if row is not None:
        changed[row : row + 12, :, 1] = 7
      paths.append(f"{row}.{kind}")
      Image.fromarray(changed).save(tmp_path / paths[-1], compress_level=0)
  found = headers.read_all(tmp_path, paths)
  assert len(set(found.stamps[:, 0].tolist())) == 2
  assert len(set(found.marks.tolist())) == len(paths) == 18
  again = [shutil.copy(tmp_path / path, tmp_path / f"copy-{path}").name for path in paths]
  np.testing.assert_array_equal(headers.read_all(tmp_path, again).marks, found.marks)


def test_some_of_the_headers(tmp_path):
  for name in "acd":
    (tmp_path / name).write_bytes(encoded("PNG", size=(ord(name), 5)))
  (tmp_path / "b").write_text("no image")
  rows, names = [3, 1, 0], "dba"
  some, same = headers.read_all(tmp_path, "abcd").take(rows), headers.read_all(tmp_path, names)
  np.testing.assert_array_equal(some.sizes, same.sizes)
  np.testing.assert_array_equal(some.stamps, same.stamps)
  assert some.faults == same.faults
  assert list(some.faults) == [1]
