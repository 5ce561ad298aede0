"""Users' `.npz` files of images and labels."""

import pathlib
import random
import warnings

import numpy as np

from bit_jax.data.sources import arrays
from bit_jax.runtime import errors
from experiments.reliability.fuzz import target, zips

# Of this, `machine.free_memory` keeps 2 GiB of address space for libraries.
_MEMORY = (2 << 30) + (512 << 20)
_PARTS = ("train", "val", "test")


def images() -> target.Target:
  """Returns users' `.npz` files."""
  valid = _valid()
  names = [f"{name}.npy".encode() for name in valid]
  seeds = [
    zips.archive([zips.Entry(n, a, m) for n, a in zip(names, valid.values(), strict=True)])
    for m in (zips.STORED, zips.DEFLATED)
  ]

  def build(rng: random.Random) -> bytes:
    found = [_other(rng) if rng.random() < 0.2 else a for a in valid.values()]
    if rng.random() < 0.5:
      return zips.faulty_archive(rng, names, found)
    pairs = [pair for pair in zip(names, found, strict=True) if rng.random() < 0.95]
    return zips.archive([zips.Entry(n, a, zips.DEFLATED) for n, a in pairs])

  tokens = (b"\x93NUMPY\x01\x00", b"PK\x01\x02", b"PK\x05\x06", b"'shape': (", b"000", b"|O")
  return target.Target(seeds, build, _check, tokens, _MEMORY)


def _valid() -> dict[str, bytes]:
  labels = np.array([0, 1, 1, 0], "<i8").tobytes()
  grey = bytes(range(4 * 2 * 3))
  found = {}
  for part in _PARTS:
    found[f"{part}_images"] = zips.npy((4, 2, 3), grey, "|u1")
    found[f"{part}_labels"] = zips.npy((4, 1), labels, "<i8")
  return found | {"class_names": zips.npy((2,), "catdog".encode("utf-32-le"), "<U3")}


def _other(rng: random.Random) -> bytes:
  """Returns an array that is faulty, or of another form."""
  if rng.random() < 0.5:
    return zips.faulty_array(rng)
  numbers = rng.choice(((0, 1, 1, 0), (0, 2**31, 1, 2**63 - 1), (-1, 0, 1, 1), (0, 9, 1, 1)))
  return rng.choice(
    (
      zips.npy((4,), np.array(numbers, "<i8").tobytes(), "<i8"),
      zips.npy((4,), np.array(numbers, "<i8").astype(">u8").tobytes(), ">u8"),
      zips.npy((4, 2, 3, 1), bytes(24), "|u1", fortran=True),
      zips.npy((4, 0, 3), b"", "|u1"),
      zips.npy((10**12, 2, 3), b"", "|u1"),
      zips.npy((2,), "a\nb\u202ec\0".encode("utf-32-le")[:24], "<U3"),
      zips.npy((2,), b"\xff\xfe\xfdab\0", "|S3"),
      zips.npy((2,), b"\xff\xff\xff\x7f" * 6, "<U3"),
      zips.npy((2,), b"\x00\xd8\x00\x00" * 6, "<U3"),
    )
  )


def _check(data: bytes, folder: pathlib.Path) -> bool:
  path = str(folder / "images.npz")
  pathlib.Path(path).write_bytes(data)
  try:
    contents = arrays.describe_npz(path)
  except errors.UserError:
    arrays.read_npz_part(path)  # needs one part alone
    return True
  with np.load(path, allow_pickle=False) as expected, warnings.catch_warnings():
    for part, labels in contents.labels.items():
      found = arrays.read_npz(path, contents, part)
      n, (height, width) = len(labels), contents.image_size
      assert found.images.shape == (n, height, width, 3)
      assert found.images.dtype == np.uint8
      assert found.labels.min() >= 0
      assert found.labels.max() < len(contents.class_names)
      stored = expected[f"{part}_images"].reshape(n, height, width, -1)
      np.testing.assert_array_equal(found.images, np.broadcast_to(stored, found.images.shape))
  return True
