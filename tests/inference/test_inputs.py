"""Tests of bit_jax.inference.inputs."""

import os
import pathlib
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bit_jax.data import images
from bit_jax.inference import inputs
from bit_jax.runtime import errors


@pytest.fixture
def here(tmp_path, monkeypatch):
  """A folder of images, which is the current one."""
  for name in (
    *("photos/b.jpg", "photos/a.PNG", "photos/cats/2.jpeg", "photos/cats/old/1.webp"),
    *("photos/dogs.jpg/3.gif", "photos/@eaDir/thumb.jpg", "photos/.hidden/4.jpg"),
    *("photos/notes.txt", "photos/cats/raw", "single.jpg", "no_extension", "photo[1].jpg"),
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  monkeypatch.chdir(tmp_path)
  return tmp_path


PHOTOS = ("a.PNG", "b.jpg", "cats/2.jpeg", "cats/old/1.webp", "dogs.jpg/3.gif")


def found(*named, listing=None):
  result = inputs.find(named, None if listing is None else lambda: listing)
  return result.files.paths


def test_a_folder_is_walked_in_order_without_files_that_are_no_images(here):
  assert found("photos") == tuple(f"photos/{name}" for name in PHOTOS)
  assert found("photos/") == found("photos")
  assert found(str(here / "photos")) == tuple(f"{here}/photos/{name}" for name in PHOTOS)


def test_a_folder_with_the_name_of_an_image_is_a_folder(here):
  assert found("photos/dogs.jpg") == ("photos/dogs.jpg/3.gif",)


def test_a_named_file_counts_whatever_its_extension(here):
  named = ("single.jpg", "no_extension", "photos/notes.txt", "photos/.hidden/4.jpg", "photo[1].jpg")
  assert found(*named) == named


@pytest.mark.parametrize(
  ("pattern", "expected"),
  [
    ("photos/*", PHOTOS),  # as a folder: not the notes
    ("photos/*.jpg", ("b.jpg", "dogs.jpg/3.gif")),
    ("photos/*/*", ("cats/2.jpeg", "cats/old/1.webp", "dogs.jpg/3.gif")),
    ("photos/[ab].*", ("a.PNG", "b.jpg")),
    ("ph*//b.jpg", ("b.jpg",)),
    ("photos//**//cats/", ("cats/2.jpeg", "cats/old/1.webp")),
    ("photos/**", PHOTOS),
    ("photos/**/", PHOTOS),
    ("photos/**/*.jpg", ("b.jpg", "dogs.jpg/3.gif")),
    ("photos/**/?.jpeg", ("cats/2.jpeg",)),
    ("photos/**/old/*", ("cats/old/1.webp",)),
    ("photos/**/cats", ("cats/2.jpeg", "cats/old/1.webp")),
    ("photos/c*/**/*.webp", ("cats/old/1.webp",)),
    ("p*/**/cats/**/*.webp", ("cats/old/1.webp",)),
  ],
)
def test_patterns(here, pattern, expected):
  result = inputs.find([pattern])
  assert sorted(result.files.paths) == [f"photos/{name}" for name in expected]
  assert (result.faults, result.repeated) == ((), 0)


def test_patterns_from_the_current_the_root_and_the_home_folder(here, monkeypatch):
  assert found("**/*.webp") == ("photos/cats/old/1.webp",)
  assert found(f"{here}/**/*.webp") == (f"{here}/photos/cats/old/1.webp",)
  monkeypatch.setenv("HOME", str(here))
  assert found("~/photos/**/*.webp") == (f"{here}/photos/cats/old/1.webp",)
  assert found("~/single.jpg") == (f"{here}/single.jpg",)


@given(
  st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=5),
  st.lists(st.sampled_from(["**", "*", "a", "?b"]), min_size=1, max_size=5),
)
def test_a_pattern_matches_what_pathlib_says(names, parts):
  """`PurePath.match` knows no '**', so it is replaced by any number of '*'."""

  def replaced(parts):
    if "**" not in parts:
      return [parts]
    i = parts.index("**")
    least = 1 if i == len(parts) - 1 else 0
    rest = replaced(parts[i + 1 :])
    return [parts[:i] + ["*"] * n + more for n in range(least, 6) for more in rest]

  path = pathlib.PurePath("/", *names)
  expected = any(path.match("/" + "/".join(p)) for p in replaced(parts) if p)
  assert inputs._fits(names, parts) == expected


def test_links_that_lead_round_in_circles_end(here):
  (here / "photos/cats/up").symlink_to(here / "photos")
  (here / "photos/self").symlink_to("self")
  assert found("photos") == tuple(f"photos/{name}" for name in PHOTOS)
  assert set(found("photos/**/*.webp")) == {"photos/cats/old/1.webp"}


@pytest.mark.parametrize(
  "content",
  [
    b"single.jpg\nphotos/cats\nno_extension\n",
    b"\xef\xbb\xbfsingle.jpg\r\n\r\nphotos/cats\r\nno_extension",
    b"single.jpg\0photos/cats\0no_extension\0",
  ],
)
def test_a_list_of_paths(here, content):
  listed = ("single.jpg", "photos/cats/2.jpeg", "photos/cats/old/1.webp", "no_extension")
  assert found("-", listing=content) == listed
  assert found("photos/b.jpg", "-", "-", listing=content) == ("photos/b.jpg", *listed)


def test_names_in_a_list_are_literal(here):
  strange = 'two\nlines, "quoted" *.jpg'
  (here / strange).touch()
  (here / "~").touch()
  assert found("-", listing=f"{strange}\0~\0".encode()) == (strange, "~")


@given(st.lists(st.binary(min_size=1).filter(lambda b: not {0, 47} & set(b)), min_size=1))
def test_any_name_passes_through_a_list(names):
  lines = list(inputs._lines(b"\0".join([*names, b""])))
  expected = [n.removeprefix(b"\xef\xbb\xbf") if i == 0 else n for i, n in enumerate(names)]
  assert [os.fsencode(line) for line in lines] == [n for n in expected if n]


def test_each_file_counts_once(here):
  (here / "link.jpg").symlink_to("single.jpg")
  named = ["single.jpg", "./single.jpg", "photos", "photos//b.jpg", str(here / "photos/b.jpg")]
  result = inputs.find([*named, "link.jpg"])
  kept = ("single.jpg", *(f"photos/{name}" for name in PHOTOS), "link.jpg")
  assert result.files.paths == kept
  assert result.repeated == 3


def test_inputs_without_images_are_named_and_the_others_are_found(here):
  (here / "empty").mkdir()
  result = inputs.find(
    ["empty", "*.tif", "no*", "missing.jpg", "single.jpg", "~no_such_user/a.jpg"]
  )
  assert result.files.paths == ("missing.jpg", "single.jpg")
  folder, pattern, others, home = result.faults
  assert folder.startswith("The folder empty contains no images; image files end in .bmp, .gif,")
  assert pattern == "No file or folder matches the pattern *.tif."
  assert others.startswith("No file with the extension of an image (.bmp, ")
  assert "~no_such_user is not a valid home folder" in home


def test_a_folder_that_cannot_be_read_is_named(here, monkeypatch):
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith("cats"):
      raise PermissionError(13, "Permission denied", path)
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  result = inputs.find(["photos"])
  assert result.files.paths == ("photos/a.PNG", "photos/b.jpg", "photos/dogs.jpg/3.gif")
  assert result.faults == (
    "The folder photos/cats can't be read: Permission denied. Make it readable or move it out.",
  )


@pytest.mark.parametrize(
  ("named", "message"),
  [
    (["missing.jpg"], "File or folder not found: missing.jpg."),
    (["a", "b"], "File or folder not found: a, b."),
    (["*.tif", "a\nb"], r"No file or folder matches .* File or folder not found: a\\nb."),
    (["-"], "The list on standard input is empty: write one path a line."),
    ([], "No images given"),
  ],
)
def test_nothing_to_read_is_an_error(here, named, message):
  with pytest.raises(errors.UserError, match=message):
    inputs.find(named, lambda: b"\n")


def test_reading(tmp_path):
  pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
  good, broken = tmp_path / "good", tmp_path / "a\nb.png"
  Image.fromarray(pixels).save(good, "png")
  broken.write_bytes(good.read_bytes()[:45])
  files = inputs.Files((str(good), str(broken), str(tmp_path / "none.jpg")))
  image, label = files.read(0)
  np.testing.assert_array_equal(image, pixels)
  assert (label, len(files)) == (0, 3)
  with pytest.raises(images.Unreadable, match=r"a\\nb.png is "):
    files.read(1)
  with pytest.raises(images.Unreadable, match=r"none.jpg can.t be opened \(No such file"):
    files.read(2)


def test_the_fingerprint_changes_with_the_files(tmp_path):
  first, second = tmp_path / "1", tmp_path / "2"
  first.write_bytes(b"1")
  second.write_bytes(b"1")
  both = (str(first), str(second))
  seen = {inputs.Files(paths).fingerprint() for paths in (both, both[::-1], both[:1])}
  assert len(seen) == 3
  assert inputs.Files(both).fingerprint() in seen
  second.write_bytes(b"12")
  seen.add(inputs.Files(both).fingerprint())
  os.utime(second, ns=(1, 1))
  seen.add(inputs.Files(both).fingerprint())
  second.unlink()
  seen.add(inputs.Files(both).fingerprint())
  assert len(seen) == 6


@given(st.text(string.printable + "é\x85\u2028\u2029\udcff"))
def test_escaped_paths_are_one_line(text):
  assert len(inputs.escaped(text).splitlines()) <= 1
  if text.isprintable():
    assert inputs.escaped(text) == text
