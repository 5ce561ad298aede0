"""Files are replaced in one step or stay as they were."""

import os

import pytest

from bit_jax import files


def test_what_was_there_is_replaced_at_the_end(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  with files.replacing(path) as temporary:
    temporary.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new"
  assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_if_writing_fails(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")

  def fail():
    with files.replacing(path) as temporary:
      temporary.write_text("ne")
      raise OSError("full")

  with pytest.raises(OSError, match="full"):
    fail()
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["text", b"text"])
def test_a_record_is_kept_where_it_can_be(content, tmp_path):
  files.remember(tmp_path / "a" / "b", content)
  assert (tmp_path / "a" / "b").read_text() == "text"
  files.remember(tmp_path / "a" / "b" / "c", content)  # b is no folder


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
  path = tmp_path / "file"
  path.write_text("old")
  synced = []

  def fsync(number):
    synced.append((os.pread(number, 10, 0), path.read_text()))

  monkeypatch.setattr(os, "fsync", fsync)
  with files.replacing(path) as temporary:
    temporary.write_text("new")
  assert synced == [(b"new", "old")]
