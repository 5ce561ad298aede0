"""BiT checkpoints: files of either format <-> nested parameters, with strict checks.

A `.npz` file has official keys, a `.safetensors` file those of timm (`layouts`).
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from bit_jax.models import architectures
from bit_jax.runtime import cache, errors, paths
from bit_jax.weights import containers, layouts, npz, safetensors_file

_HEAD = ("head/conv2d/kernel", "head/conv2d/bias")
_POINTER = b"version https://git-lfs"  # what git leaves in place of a large file


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


def opened(path: pathlib.Path) -> contextlib.AbstractContextManager[containers.Container]:
  """Returns a checkpoint file to enter, whose content and not its name decides on its format.

  Raises:
    UserError: The file is missing, damaged, or of another format.
  """
  try:
    with path.open("rb") as file:
      start = file.read(len(_POINTER))
  except OSError as e:
    raise errors.UserError(f"{path} can't be read: {e.strerror or e}.") from e
  if start[8:9] == b"{":  # a header in JSON, after its length; in a zip file this is no brace
    return safetensors_file.opened(path)
  if start[:2] == b"PK":
    return npz.opened(path)
  if start == _POINTER:
    raise errors.UserError(
      f"{path} is a pointer of Git LFS and not the checkpoint: run `git lfs pull` in its folder."
    )
  raise errors.UserError(
    f"{path} is neither an .npz nor a .safetensors file: give the path of a checkpoint in one of "
    f"these formats."
  )


def load(
  path: str | os.PathLike[str],
  architecture: architectures.Architecture,
  *,
  head: Literal["zero", "keep"],
  num_classes: int,
) -> LoadedCheckpoint:
  """Loads a checkpoint, checking names, shapes, CRCs and finiteness of everything that it reads.

  Args:
    path: An `.npz` file with official keys, with or without the leading `resnet/`, or a
      `.safetensors` file with timm's.
    architecture: The network that the file must hold.
    head: 'zero' ignores the file's head and returns one of zeros; 'keep' returns the file's.
    num_classes: Outputs of the head to return.

  Raises:
    UserError: The file is missing or damaged, or holds another architecture, has missing, unknown
      or mis-shaped keys (all named), NaNs or pickled objects, or a head of another size to keep.
  """
  path = paths.named(os.fspath(path))
  with opened(path) as file:
    file_classes = _num_classes(file)
    keys = _checked(file, architecture, file_classes)
    if head == "keep" and file_classes != num_classes:
      has = f"a head of {file_classes} classes" if file_classes else "no head"
      raise errors.UserError(
        f"{path} has {has}, and {num_classes} are needed: use head=zero to start with a new head."
      )
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # hashing releases the GIL
      digest = pool.submit(cache.sha256, path)
      shapes = architectures.parameter_shapes(architecture, num_classes)
      params: dict[str, Any] = {}
      for name, shape in shapes.items():
        is_new = name in _HEAD and head == "zero"
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
          node = node.setdefault(folder, {})
        node[leaf] = (
          np.zeros(shape, np.float32) if is_new else file.layout.from_file(file.read(keys[name]))
        )
      return LoadedCheckpoint(params, digest.result())


def verify(path: pathlib.Path, architecture: str, num_classes: int) -> str:
  """Checks a file's whole content, head included, one array at a time.

  Args:
    path: A file as for `load`.
    architecture: Short name of the network that the file must hold.
    num_classes: Outputs that its head must have, 0 for no head.

  Returns:
    The SHA-256 of the file's bytes, in hexadecimal.

  Raises:
    UserError: As `load`.
  """
  with opened(path) as file:
    keys = _checked(file, architectures.ARCHITECTURES[architecture], num_classes)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      digest = pool.submit(cache.sha256, path)
      for key in keys.values():
        file.read(key)
      return digest.result()


def infer(path: pathlib.Path) -> tuple[str | None, int]:
  """Returns (architecture name or None, outputs of the head or 0) from the headers alone.

  Raises:
    UserError: The file is missing, damaged or of another format.
  """
  with opened(path) as file:
    return _architecture(file), _num_classes(file)


def save(
  path: str | os.PathLike[str],
  params: Mapping[str, Any],
  *,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes parameters as float32, in one step.

  A file that ends in `.safetensors` gets timm's keys, and timm loads it; any other gets the
  official keys under `resnet/`, uncompressed.

  Args:
    path: The file to write; its folder is created if needed.
    params: Nested dicts of arrays or array-likes, named as `architectures.parameter_shapes`.
    metadata: Texts to write into a `.safetensors` file; 'class_names' holds a list in
      JSON, which `class_names` reads.

  Raises:
    UserError: The file can't be written.
  """
  path = paths.named(os.fspath(path))
  is_safetensors = path.suffix == ".safetensors"
  layout = layouts.TIMM if is_safetensors else layouts.OFFICIAL
  arrays = {
    layout.key(name): layout.to_file(np.asarray(value, np.float32))
    for name, value in _flatten(params)
  }
  if is_safetensors:
    safetensors_file.write(path, arrays, metadata or {})
  else:
    npz.write(path, arrays)


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in nested.items():
    if isinstance(value, Mapping):
      yield from _flatten(value, f"{prefix}{name}/")
    else:
      yield prefix + name, value


def _checked(
  file: containers.Container, architecture: architectures.Architecture, num_classes: int
) -> dict[str, str]:
  """Returns {parameter: key in the file}, or raises a UserError that names every difference."""
  layout, headers = file.layout, file.headers
  expected = {
    name: layout.shape_in_file(shape)
    for name, shape in architectures.parameter_shapes(architecture, num_classes or None).items()
  }
  by_name = {layout.name(h.key): h for h in headers}
  counts = Counter(layout.name(h.key) for h in headers)
  differences = {
    "missing": [layout.key(name) for name in expected if name not in by_name],
    "unknown": [h.key for name, h in by_name.items() if name not in expected],
    "more than one array for the same parameter": [
      h.key for h in headers if counts[layout.name(h.key)] > 1
    ],
    "wrong shape or dtype": [
      f"{h.key} is {h.dtype} {h.shape} and not float {expected[name]}"
      for name, h in by_name.items()
      if name in expected and (not h.is_float or h.shape != expected[name])
    ],
  }
  problems = [f"{what} {', '.join(keys)}" for what, keys in differences.items() if keys]
  if not problems:
    return {name: by_name[name].key for name in expected}
  other = _architecture(file)
  if other not in (None, architecture.name):
    raise errors.UserError(
      f"{file.path} holds {other}, not {architecture.name}: use another file, or the model of this "
      f"architecture."
    )
  raise errors.UserError(
    f"{file.path} is not an {architecture.name} checkpoint: {'; '.join(problems)}."
  )


def _architecture(file: containers.Container) -> str | None:
  layout = file.layout
  shapes = {layout.name(h.key): layout.shape(h.shape) for h in file.headers}
  body = {name: shape for name, shape in shapes.items() if name not in _HEAD}
  for name, architecture in architectures.ARCHITECTURES.items():
    if body == architectures.parameter_shapes(architecture, None):
      return name
  return None


def _num_classes(file: containers.Container) -> int:
  """Returns the outputs of the head, 0 if there is no head."""
  shapes = (file.layout.shape(h.shape) for h in file.headers if file.layout.name(h.key) in _HEAD)
  return next((shape[-1] for shape in shapes if shape), 0)
