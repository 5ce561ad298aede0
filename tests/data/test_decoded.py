"""Tests of bit_jax.data.decoded."""

import collections
import errno
import multiprocessing
import os
import shutil

import numpy as np
import pytest

from bit_jax.data import decoded, resizing
from bit_jax.runtime import errors

N, SIZE = 12, 8
SHAPE = (SIZE, SIZE)


class Pictures:
  """Images of many sizes whose reading is counted; `shift` makes them others."""

  def __init__(self, n=N, shift=0):
    self.n, self.shift, self.asked = n, shift, collections.Counter()

  def __len__(self):
    return self.n

  def read(self, index):
    self.asked[index] += 1
    random = np.random.default_rng(index + self.shift)
    return random.integers(0, 256, (5 + index, 9, 3), dtype=np.uint8), (index * 7 + self.shift) % 5


def read_all(cache):
  return [cache.read(i) for i in range(len(cache))]


def assert_right(found, source):
  assert len(found) == len(source)
  for i, (image, label) in enumerate(found):
    expected, expected_label = type(source)(source.n, source.shift).read(i)
    np.testing.assert_array_equal(image, resizing.resize(expected, SIZE))
    assert label == expected_label
    assert type(label) is int


@pytest.fixture
def folder(tmp_path):
  """A cache that is complete."""
  read_all(decoded.DecodedCache(Pictures(), SHAPE, tmp_path / "set", N))
  return tmp_path / "set"


def test_what_is_not_there_comes_from_the_source_and_what_is_does_not(tmp_path):
  source = Pictures()
  cache = decoded.DecodedCache(source, SHAPE, tmp_path / "a" / "b", N)
  assert len(cache) == N
  assert_right(read_all(cache), source)
  assert_right(read_all(cache), source)
  assert source.asked == dict.fromkeys(range(N), 1)


def test_a_later_run_reads_from_disk_alone(folder):
  source = Pictures()
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, folder, N)), source)
  assert not source.asked


def test_only_what_was_read_is_there(tmp_path):
  decoded.DecodedCache(Pictures(), SHAPE, tmp_path, N).read(5)
  source = Pictures()
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, tmp_path, N)), source)
  assert set(source.asked) == set(range(N)) - {5}


class Wide(Pictures):
  """Images of one size that is no square."""

  def read(self, index):
    image, label = super().read(index)
    return np.broadcast_to(image[:1], (3, 9, 3)) ^ np.arange(3, dtype=np.uint8)[
      :, None, None
    ], label


def test_images_of_one_size_stay_as_they_are(tmp_path):
  for expected_reads in (1, 0):
    source = Wide()
    cache = decoded.DecodedCache(source, (3, 9), tmp_path, N)
    for _ in range(2):
      for i, (image, label) in enumerate(read_all(cache)):
        expected, expected_label = Wide().read(i)
        np.testing.assert_array_equal(image, expected)
        assert label == expected_label
    assert sum(source.asked.values()) == expected_reads * N


def test_a_reader_cannot_change_the_file(folder):
  cache = decoded.DecodedCache(Pictures(), SHAPE, folder, N)
  with pytest.raises(ValueError, match="read-only"):
    cache.read(0)[0][:] = 0
  assert_right(read_all(cache), Pictures())


@pytest.mark.parametrize("file", ["images.npy", "marks.npy"])
@pytest.mark.parametrize("from_end", [1, 9])  # of the marks: in the last label, in its checksum
def test_a_byte_that_changed_on_disk_is_read_again(folder, file, from_end):
  path = folder / file
  data = bytearray(path.read_bytes())
  data[-from_end] ^= 0x40
  path.write_bytes(data)
  source = Pictures()
  cache = decoded.DecodedCache(source, SHAPE, folder, N)
  for _ in range(2):
    assert_right(read_all(cache), source)
  assert source.asked == {N - 1: 1}


@pytest.mark.parametrize("file", ["images.npy", "marks.npy"])
@pytest.mark.parametrize("left", [0, 5, 60, 150])
def test_what_a_file_that_was_cut_short_lacks_is_read_again(folder, file, left):
  os.truncate(folder / file, left)
  source = Pictures()
  cache = decoded.DecodedCache(source, SHAPE, folder, N)
  for _ in range(2):
    assert_right(read_all(cache), source)
  assert set(source.asked.values()) == {1}
  assert len(source.asked) >= N - 1  # in 150 bytes there is room for one


def test_another_number_of_images_or_size_begins_anew(folder):
  source = Pictures(N + 1)
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, folder, N + 1)), source)
  assert len(source.asked) == N + 1
  image, _ = decoded.DecodedCache(Pictures(), (SIZE + 1, SIZE + 1), folder, N).read(3)
  np.testing.assert_array_equal(image, resizing.resize(Pictures().read(3)[0], SIZE + 1))


def test_too_little_room_is_told_before_anything_is_read(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  message = r"images need 2\.\d kB, and the disk has 1\.0 kB free.* \$BIT_JAX_CACHE"
  with pytest.raises(errors.UserError, match=message):
    decoded.DecodedCache(Pictures(), SHAPE, tmp_path / "set", N)
  assert not list((tmp_path / "set").iterdir())


def test_room_is_needed_only_for_what_will_be_read_and_is_not_there(tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=SIZE * SIZE * 3 * 5)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  folder = tmp_path / "set"
  cache = decoded.DecodedCache(Pictures(), SHAPE, folder, 5)
  with pytest.raises(errors.UserError, match="decoded images need"):
    decoded.DecodedCache(Pictures(), SHAPE, tmp_path / "other", 6)
  read_all(cache)
  os.sync()  # so that the file takes its blocks
  decoded.DecodedCache(Pictures(), SHAPE, folder, N)


@pytest.mark.parametrize("obstacle", ["folder", "parent"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path, obstacle):
  (tmp_path / "set").touch()
  folder = tmp_path / "set" if obstacle == "folder" else tmp_path / "set" / "below"
  with pytest.raises(errors.UserError, match=r"cache of decoded images .* can't be written"):
    decoded.DecodedCache(Pictures(), SHAPE, folder, N)


def test_a_disk_that_is_full_is_told_and_what_was_not_written_is_read_again(
  tmp_path, monkeypatch, capsys
):
  source = Pictures()
  cache = decoded.DecodedCache(source, SHAPE, tmp_path, N)
  cache.read(0)

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(os, "pwrite", full)
    for index in (1, 2, 0):
      cache.read(index)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(
    f"warning: The cache of decoded images in {tmp_path} can't be written (No sp"
  )
  assert line.endswith("decoded_cache=False. More images are not kept.")
  assert_right(read_all(cache), source)
  assert source.asked == {**dict.fromkeys(range(N), 1), 1: 2, 2: 2}
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, tmp_path, N)), source)  # the next run
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, tmp_path, N)), source)
  assert sum(source.asked.values()) == N + 2 + N - 1


def test_two_runs_share(tmp_path):
  """One that began earlier sees what the other wrote since."""
  sources = Pictures(), Pictures()
  first, second = (decoded.DecodedCache(s, SHAPE, tmp_path, N) for s in sources)
  for i in range(N):
    (first if i % 2 else second).read(i)
  for cache, source in zip((first, second), sources, strict=True):
    assert_right(read_all(cache), source)
    assert sum(source.asked.values()) == N // 2


def _fill(folder, order):
  cache = decoded.DecodedCache(Pictures(200), SHAPE, folder, 200)
  for _ in range(3):
    for i in order:
      cache.read(i)


def test_processes_share(tmp_path):
  context = multiprocessing.get_context("spawn")
  orders = [list(range(200)), list(reversed(range(200)))]
  processes = [context.Process(target=_fill, args=(tmp_path, order)) for order in orders]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  assert [p.exitcode for p in processes] == [0, 0]
  source = Pictures(200)
  assert_right(read_all(decoded.DecodedCache(source, SHAPE, tmp_path, 200)), source)
  assert not source.asked
