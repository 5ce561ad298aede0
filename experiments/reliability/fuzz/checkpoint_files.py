"""Checkpoint files: `.npz` and `.safetensors`, with `config.json` of timm beside them."""

import json
import pathlib
import random
import struct

import numpy as np
import safetensors

from bit_jax.weights import checkpoints, classes
from experiments.reliability.fuzz import target, zips

# Of this, `machine.free_memory` keeps 2 GiB of address space for libraries.
_MEMORY = (2 << 30) + (512 << 20)
_NAMES = (b"resnet/head/conv2d/kernel.npy", b"resnet/head/conv2d/bias.npy", b"a.npy")
_DTYPES = ("F32", "F64", "F16", "BF16", "I8", "U64", "BOOL", "F8_E4M3", "F4", "C64", "X", 1)


def npz() -> target.Target:
  """Returns the `.npz` files of checkpoints."""
  kernel = np.arange(12, dtype="<f4").tobytes()
  arrays = (
    zips.npy((1, 1, 4, 3), kernel),
    zips.npy((3,), kernel[:12]),
    zips.npy((2, 3), kernel, "<f8", fortran=True),
  )
  seeds = [
    zips.archive([zips.Entry(n, a, method) for n, a in zip(_NAMES, arrays, strict=True)])
    for method in (zips.STORED, zips.DEFLATED)
  ]

  def build(rng: random.Random) -> bytes:
    found = [zips.faulty_array(rng) if rng.random() < 0.4 else a for a in arrays]
    if rng.random() < 0.5:
      entries = [zips.Entry(n, a, zips.DEFLATED) for n, a in zip(_NAMES, found, strict=True)]
      return zips.archive(entries)
    return zips.faulty_archive(rng, _NAMES, found)

  tokens = (b"\x93NUMPY\x01\x00", b"PK\x01\x02", b"PK\x05\x06", b"'shape': (", b"000", b"|O")
  return target.Target(seeds, build, _check_npz, tokens, _MEMORY)


def safetensors_files() -> target.Target:
  """Returns `.safetensors` files; where the first line is JSON, it is timm's `config.json`."""
  header = {
    "__metadata__": {"class_names": '["cat", "dog"]'},
    "head.fc.weight": {"dtype": "F32", "shape": [2, 1, 1, 1], "data_offsets": [0, 8]},
    "head.fc.bias": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]},
  }
  config = {
    "architecture": "resnetv2_50x1_bit",
    "label_names": ["cat", "dog"],
    "pretrained_cfg": {"input_size": [3, 224, 224]},
  }
  seeds = [_with_config(config, _safetensors(header, bytes(range(12)))), _with_config(1, b"")]

  def build(rng: random.Random) -> bytes:
    sizes = (-1, 0, 1, 2, 3, 10**12, 2**63, 2**64, 1.5, "2", None)
    entries = {
      rng.choice(("head.fc.weight", "head.fc.bias", "a", "", "é\x00")): {
        "dtype": rng.choice(_DTYPES),
        "shape": [rng.choice(sizes) for _ in range(rng.randrange(4))],
        "data_offsets": [rng.choice(sizes), rng.choice((0, 4, 8, 12, 2**63))],
      }
      for _ in range(3)
    }
    names = rng.choice(('["cat", "dog"]', "[" * 2000, '["a\\n", ""]', '["\\ud800", "b"]', "1e999"))
    faulty = {"__metadata__": {"class_names": names}, **(header if rng.random() < 0.5 else entries)}
    size = rng.choice((224, -1, 10**30, "x"))
    timm = rng.choice((config, {**config, "input_size": [3, size, size]}, {"architecture": 1}))
    return _with_config(timm, _safetensors(faulty, rng.randbytes(12)))

  tokens = (
    b"F32",
    b"F8_E5M2",
    b'"shape":[',
    b"[[[[[[",
    b"1e999",
    b"\\ud800",
    b"99999999999999999999",
  )
  return target.Target(seeds, build, _check_safetensors, tokens)


def _safetensors(header: object, data: bytes) -> bytes:
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def _with_config(config: object, weights: bytes) -> bytes:
  return json.dumps(config).encode() + b"\n" + weights


def _check_npz(data: bytes, folder: pathlib.Path) -> bool:
  path = folder / "weights.npz"
  path.write_bytes(data)
  checkpoints.infer(path)
  with checkpoints.opened(path) as file:
    found = {h.key: file.read(h.key, check_finite=False) for h in file.headers if h.is_number}
  with np.load(path, allow_pickle=False) as expected, np.errstate(over="ignore"):
    for key, array in found.items():
      np.testing.assert_array_equal(array, expected[key].astype(np.float32))
  return True


def _check_safetensors(data: bytes, folder: pathlib.Path) -> bool:
  config, _, weights = data.partition(b"\n")
  (folder / "config.json").write_bytes(config)
  path = folder / "weights.safetensors"
  path.write_bytes(weights)
  checkpoints.infer(path)
  with checkpoints.opened(path) as file:
    found = {h.key: file.read(h.key, check_finite=False) for h in file.headers if h.is_number}
  names = classes.class_names(path, 2)
  assert [bool(name) for name in names] == [True, True], names
  with safetensors.safe_open(path, framework="numpy") as expected:
    for key, array in found.items():
      np.testing.assert_array_equal(array, expected.get_tensor(key).astype(np.float32))
  return True
