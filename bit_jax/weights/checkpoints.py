"""BiT checkpoints in `.npz` files: official key names <-> nested parameters, with strict checks.

Key names: google-research/big_transfer `bit_pytorch/models.py` (`load_from`); the variants in some
released files: google-research/big_vision `models/bit.py` and `bit_paper.py`.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from bit_jax.models import architectures
from bit_jax.runtime import cache, errors
from bit_jax.weights import npz

_PREFIX = "resnet/"
_HEAD = ("head/conv2d/kernel", "head/conv2d/bias")


@dataclasses.dataclass(frozen=True)
class LoadedCheckpoint:
  """A checkpoint in memory.

  Attributes:
    params: The keys of `architectures.parameter_shapes` split at their slashes, as nested dicts
      of float32 arrays.
    sha256: SHA-256 of the file's bytes, in hexadecimal.
  """

  params: dict[str, Any]
  sha256: str


def load(
  path: str | os.PathLike[str],
  architecture: architectures.Architecture,
  *,
  head: Literal["zero", "keep"],
  num_classes: int,
) -> LoadedCheckpoint:
  """Loads a checkpoint, checking names, shapes, CRCs and finiteness of everything that it reads.

  Args:
    path: An `.npz` file with official keys, with or without the leading `resnet/`.
    architecture: The network that the file must hold.
    head: 'zero' ignores the file's head and returns one of zeros; 'keep' returns the file's.
    num_classes: Outputs of the head to return.

  Raises:
    UserError: The file is missing or damaged, or holds another architecture, has missing, unknown
      or mis-shaped keys (all named), NaNs or pickled objects, or a head of another size to keep.
  """
  path = pathlib.Path(path)
  with npz.open_archive(path) as archive:
    headers = npz.read_headers(archive)
    file_classes = _num_classes(headers)
    by_key = _checked(path, headers, architecture, file_classes)
    if head == "keep" and file_classes != num_classes:
      has = f"a head of {file_classes} classes" if file_classes else "no head"
      raise errors.UserError(
        f"{path} has {has}, and {num_classes} are needed: use head=zero to start with a new head."
      )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # hashing releases the GIL
      digest = pool.submit(cache.sha256, path)
      shapes = architectures.parameter_shapes(architecture, num_classes)
      params: dict[str, Any] = {}
      for key, shape in shapes.items():
        is_new = key in _HEAD and head == "zero"
        *folders, leaf = key.split("/")
        node = params
        for folder in folders:
          node = node.setdefault(folder, {})
        node[leaf] = np.zeros(shape, np.float32) if is_new else npz.read_array(archive, by_key[key])
      return LoadedCheckpoint(params, digest.result())


def verify(path: pathlib.Path, architecture: str, num_classes: int) -> str:
  """Checks a file's whole content, head included, one array at a time.

  Args:
    path: An `.npz` file.
    architecture: Short name of the network that the file must hold.
    num_classes: Outputs that its head must have, 0 for no head.

  Returns:
    The SHA-256 of the file's bytes, in hexadecimal.

  Raises:
    UserError: As `load`.
  """
  with npz.open_archive(path) as archive:
    headers = npz.read_headers(archive)
    by_key = _checked(path, headers, architectures.ARCHITECTURES[architecture], num_classes)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      digest = pool.submit(cache.sha256, path)
      for header in by_key.values():
        npz.read_array(archive, header)
      return digest.result()


def infer(path: pathlib.Path) -> tuple[str | None, int]:
  """Returns (architecture name or None, outputs of the head or 0) from the headers alone.

  Raises:
    UserError: The file is missing, damaged or not an `.npz`.
  """
  with npz.open_archive(path) as archive:
    headers = npz.read_headers(archive)
  return _infer_architecture(headers), _num_classes(headers)


def save(path: str | os.PathLike[str], params: Mapping[str, Any]) -> None:
  """Writes parameters as an official file: keys under `resnet/`, uncompressed, in one step.

  Args:
    path: The file to write; its folder is created if needed.
    params: Nested dicts of arrays or array-likes, named as `architectures.parameter_shapes`.

  Raises:
    UserError: The file can't be written.
  """
  arrays = {_PREFIX + key: np.asarray(value, np.float32) for key, value in _flatten(params)}
  npz.write(pathlib.Path(path), arrays)


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in nested.items():
    if isinstance(value, Mapping):
      yield from _flatten(value, f"{prefix}{name}/")
    else:
      yield prefix + name, value


def _normalised(key: str) -> str:
  """Returns the name in `architectures.parameter_shapes` of an array called `key` in a file.

  Drops the leading `resnet/` and the number of `standardized_conv2d_<n>`, and ends the key of a
  unit's projection as usual.
  """
  key = re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", key.removeprefix(_PREFIX))
  return re.sub(r"(block\d+/unit\d+/a/proj)(/.*)?", r"\1/standardized_conv2d/kernel", key)


def _checked(
  path: pathlib.Path,
  headers: list[npz.ArrayHeader],
  architecture: architectures.Architecture,
  num_classes: int,
) -> dict[str, npz.ArrayHeader]:
  """Returns {normalised key: header}, or raises a UserError that names every difference."""
  expected = architectures.parameter_shapes(architecture, num_classes or None)
  by_key = {_normalised(h.key): h for h in headers}
  counts = Counter(_normalised(h.key) for h in headers)
  differences = {
    "missing": [_PREFIX + k for k in expected if k not in by_key],
    "unknown": [h.key for k, h in by_key.items() if k not in expected],
    "more than one array for the same parameter": [
      h.key for h in headers if counts[_normalised(h.key)] > 1
    ],
    "wrong shape or dtype": [
      f"{h.key} is {h.dtype} {h.shape} and not float {expected[k]}"
      for k, h in by_key.items()
      if k in expected and (h.dtype.kind, h.shape) != ("f", expected[k])
    ],
  }
  problems = [f"{what} {', '.join(keys)}" for what, keys in differences.items() if keys]
  if not problems:
    return {k: by_key[k] for k in expected}
  other = _infer_architecture(headers)
  if other not in (None, architecture.name):
    raise errors.UserError(
      f"{path} holds {other}, not {architecture.name}: use another file, or the model of this "
      f"architecture."
    )
  raise errors.UserError(f"{path} is not an {architecture.name} checkpoint: {'; '.join(problems)}.")


def _infer_architecture(headers: list[npz.ArrayHeader]) -> str | None:
  shapes = {_normalised(h.key): h.shape for h in headers}
  body = {k: s for k, s in shapes.items() if k not in _HEAD}
  for name, architecture in architectures.ARCHITECTURES.items():
    if body == architectures.parameter_shapes(architecture, None):
      return name
  return None


def _num_classes(headers: list[npz.ArrayHeader]) -> int:
  """Returns the length of the head's last axis, 0 if there is no head."""
  return next((h.shape[-1] for h in headers if _normalised(h.key) in _HEAD and h.shape), 0)
