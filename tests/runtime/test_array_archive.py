"""Tests of bit_jax.runtime.array_archive: values of true files, and false ones refused unread."""

import tracemalloc

import numpy as np
import pytest

from bit_jax.runtime import array_archive, errors, machine
from experiments.reliability.fuzz import zips

ARRAYS = {
  "plain": np.arange(12, dtype=np.float32).reshape(3, 4),
  "fortran": np.asfortranarray(np.arange(12, dtype=">i8").reshape(3, 4)),
  "scalar": np.array(3.5),
  "empty": np.zeros((0, 5), np.uint8),
  "text": np.array(["cat", "naïve"]),
  "large": np.arange(300_000, dtype=np.uint16),
}


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_true_files_are_read(tmp_path, writer):
  writer(tmp_path / "a.npz", **ARRAYS)
  with array_archive.Archive(tmp_path / "a.npz") as archive:
    assert list(archive.entries) == list(ARRAYS)
    for name, expected in ARRAYS.items():
      header = archive.header(name)
      assert (header.shape, header.dtype) == (expected.shape, expected.dtype)
      np.testing.assert_array_equal(archive.read(name), expected)
      assert archive.read(name).dtype == expected.dtype


def read(tmp_path, *entries):
  path = tmp_path / "a.npz"
  path.write_bytes(zips.archive(entries))
  with array_archive.Archive(path) as archive:
    return [archive.read(name) for name in archive.entries]


def entry(data=None, name=b"a.npy", **fields):
  return zips.Entry(name, zips.npy((2,), bytes(8)) if data is None else data, **fields)


TINY = zips.npy((2,), bytes(8))


@pytest.mark.parametrize(
  ("entries", "said"),
  [
    ([entry(flags=1)], "is encrypted"),
    ([entry(method=12)], "another method"),
    ([entry(method=14)], "another method"),
    ([entry(size=2**31)], "can't have the size"),
    ([entry(method=zips.DEFLATED, size=2**31)], "can't have the size"),
    ([entry(stored=2**31)], "can't have the size"),
    ([entry(offset=2**31)], "can't have the size"),
    ([entry(), entry(name=b"b.npy", offset=0)], "overlaps"),
    ([entry(), entry()], "is there twice"),
    ([entry(), entry(name=b"a")], "is there twice"),
    ([entry(zips.npy((10**12,), bytes(8)))], "is shorter than its shape says"),
    ([entry(zips.npy((1,), bytes(8)))], "is longer than its shape says"),
    ([entry(zips.npy((-2,), bytes(8)))], "is not a .npy array"),
    ([entry(zips.npy((-2, -1), bytes(8)))], "is not a .npy array"),
    ([entry(zips.npy((True, 2), bytes(8)))], "is not a .npy array"),
    ([entry(zips.npy((10**12,), b"", "|V0"))], "is not a .npy array"),
    ([entry(zips.npy((1,), bytes(8), "|O"))], "pickled Python objects"),
    ([entry(zips.npy((1,), bytes(8), [("a", "|O")]))], "pickled Python objects"),
    ([entry(zips.with_header(b"-" * 6000 + b"1"))], "is not a .npy array"),
    ([entry(zips.with_header(b"[" * 9000))], "is not a .npy array"),
    ([entry(zips.with_header(b"{1: 2, 'descr': 3}"))], "is not a .npy array"),
    ([entry(zips.with_header(b"{}", version=2, length=2**32 - 1))], "header of 4,294,967,295"),
    ([entry(b"\x93NUMPY\x01")], "is not a .npy array"),
    ([entry(b"")], "is not a .npy array"),
  ],
)
def test_what_a_file_says_falsely_is_refused(tmp_path, entries, said):
  with pytest.raises(array_archive.Unusable, match=said):
    read(tmp_path, *entries)


@pytest.mark.parametrize("changes", [{"crc": 1}, {"name": b"\xff\xfe.npy", "flags": 1 << 11}])
def test_damage_is_one_of_the_listed_errors(tmp_path, changes):
  with pytest.raises(array_archive.DAMAGED):
    read(tmp_path, entry(**changes))


def test_a_bomb_takes_no_memory(tmp_path):
  count = 300 << 20
  bomb = entry(TINY, method=zips.DEFLATED, raw=zips.zeros(count), size=count)
  header = entry(
    zips.with_header(b"", version=2, length=2**32 - 1), name=b"b.npy", method=zips.DEFLATED
  )
  path = tmp_path / "a.npz"
  path.write_bytes(zips.archive([bomb, header]))
  assert path.stat().st_size < 1 << 20
  tracemalloc.start()
  try:
    with array_archive.Archive(path) as archive:
      for name in archive.entries:
        with pytest.raises(array_archive.Unusable):
          archive.read(name)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
  finally:
    tracemalloc.stop()


def test_memory_that_is_not_free_is_a_sentence(monkeypatch):
  monkeypatch.setattr(machine, "free_memory", lambda: 10**9)
  array_archive.require_memory("x", 10**9)
  with pytest.raises(errors.UserError, match=r"^x needs 2.0 GB of memory, and 1.0 GB are free.$"):
    array_archive.require_memory("x", 2 * 10**9)


def test_a_file_that_is_no_zip_file(tmp_path):
  (tmp_path / "a.npz").write_bytes(b"text")
  with pytest.raises(array_archive.DAMAGED):
    array_archive.Archive(tmp_path / "a.npz")
