"""Tests of bit_jax.data.sources.tfrecords."""

import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.data.sources import crc32c, tfrecords
from bit_jax.runtime import errors


def record(content):
  length = struct.pack("<Q", len(content))
  checksums = (struct.pack("<I", crc32c.masked(part)) for part in (length, content))
  return length + next(checksums) + content + next(checksums)


def write(path, contents):
  """Writes a TFRecord file."""
  path.write_bytes(b"".join(map(record, contents)))
  return str(path)


def content(file, number):
  return f"{file}/{number}".encode() * (number % 5)  # an empty one, too


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Three files of 7, 1 and 10 records."""
  folder = tmp_path_factory.mktemp("records")
  return [
    write(folder / f"{i}.tfrecord", [content(i, k) for k in range(n)])
    for i, n in enumerate((7, 1, 10))
  ]


@given(
  st.lists(
    st.sampled_from([(0, 7), (1, 1), (2, 10)]).flatmap(
      lambda file: st.integers(0, file[1]).flatmap(
        lambda skip: st.tuples(st.just(file[0]), st.just(skip), st.integers(0, file[1] - skip))
      )
    ),
    max_size=5,
  )
)
def test_stretches_are_one_sequence(files, stretches):
  expected = [content(i, k) for i, skip, take in stretches for k in range(skip, skip + take)]
  sequence = tfrecords.Records([tfrecords.Stretch(files[i], s, t) for i, s, t in stretches])
  assert len(sequence) == len(expected)
  backwards = [sequence.read(i) for i in reversed(range(len(expected)))]
  assert backwards[::-1] == expected


def test_tensorflow_writes_such_files(tmp_path):
  # Two records, b"first" and b"the second", as TFRecordWriter of TensorFlow 2.21 writes them.
  data = bytes.fromhex(
    "0500000000000000eab2043e666972737455ff23e50a00000000000000aea3bf3a746865207365636f6e64e5ef6578"
  )
  (tmp_path / "two.tfrecord").write_bytes(data)
  sequence = tfrecords.Records([tfrecords.Stretch(str(tmp_path / "two.tfrecord"), 0, 2)])
  assert [sequence.read(i) for i in range(2)] == [b"first", b"the second"]


def test_nothing_is_read_before_it_is_asked_for(files, tmp_path):
  absent = str(tmp_path / "absent.tfrecord")
  sequence = tfrecords.Records([tfrecords.Stretch(absent, 0, 3), tfrecords.Stretch(files[1], 0, 1)])
  assert len(sequence) == 4
  assert sequence.read(3) == content(1, 0)
  with pytest.raises(errors.UserError, match=r"absent\.tfrecord can't be read \(No such file"):
    sequence.read(0)


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
def test_what_is_whole_of_a_truncated_file_is_read_and_the_rest_told(tmp_path, cut):
  path = tmp_path / "cut.tfrecord"
  write(path, [bytes([k]) * 10 for k in range(4)])
  path.write_bytes(path.read_bytes()[:-cut])
  sequence = tfrecords.Records([tfrecords.Stretch(str(path), 0, 4)])
  assert sequence.read(2) == bytes([2]) * 10
  with pytest.raises(
    errors.UserError, match=r"cut\.tfrecord is incomplete: it has 3 complete"
  ) as e:
    sequence.read(3)
  assert "record 4" in str(e.value)


@pytest.mark.parametrize("length", [2**64 - 1, 0, 4, 23])
def test_a_false_length_is_found_before_any_record_is_read(tmp_path, length):
  path = tmp_path / "odd.tfrecord"
  write(path, [b"good", b"bad", b"good"])  # 23: the second and the third as one record
  data = bytearray(path.read_bytes())
  data[20:28] = struct.pack("<Q", length)
  path.write_bytes(data)
  sequence = tfrecords.Records([tfrecords.Stretch(str(path), 0, 3)])
  with pytest.raises(errors.UserError, match="the checksum of record 2 is wrong"):
    sequence.read(0)


def test_no_flipped_bit_is_read(tmp_path):
  path = tmp_path / "flipped.tfrecord"
  write(path, [b"first", b"second"])
  whole = path.read_bytes()
  for bit in range(8 * len(whole)):
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    sequence = tfrecords.Records([tfrecords.Stretch(str(path), 0, 2)])
    with pytest.raises(errors.UserError, match=r"checksum of record [12] is wrong"):
      assert [sequence.read(i) for i in range(2)] == []


def test_threads_read_at_the_same_time(files):
  whole = zip(files, (7, 1, 10), strict=True)
  sequence = tfrecords.Records([tfrecords.Stretch(path, 0, n) for path, n in whole])
  expected = [content(i, k) for i, n in enumerate((7, 1, 10)) for k in range(n)]
  start, wrong = threading.Barrier(6), []

  def work():
    start.wait()
    for _ in range(20):
      wrong.extend(i for i in range(18) if sequence.read(i) != expected[i])

  threads = [threading.Thread(target=work) for _ in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong
