"""Reading and writing the `.safetensors` container, in timm's layout.

The safetensors library reads: it bounds the header, and checks that its arrays cover the file
exactly. There is no checksum. It would hold all arrays twice to write them, with metadata in random
order; here they are written one by one, and the same arrays give the same bytes.

Format: huggingface/safetensors, README: the length of the header in 8 bytes, little-endian; the
header in JSON; the data.
"""

import contextlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  gives numpy its bfloat16
import numpy as np
import safetensors

from bit_jax.runtime import errors
from bit_jax.weights import containers, layouts

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INTEGERS = {
  f"{code}{bits}": f"{name}{bits}"
  for code, name in (("I", "int"), ("U", "uint"))
  for bits in (8, 16, 32, 64)
}
_HEADER_ALIGNMENT = 8  # so that the data of a mapped file is aligned
_METADATA = "__metadata__"
_FROM_TORCH = {"format": "pt"}  # transformers refuses files without it


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator["Safetensors"]:
  """Opens the file at `path`.

  Raises:
    UserError: The file doesn't exist, is truncated or damaged, or not in this format.
  """
  try:
    file = safetensors.safe_open(path, framework="numpy")
  except OSError as e:
    raise errors.UserError(f"{path} can't be read: {e.strerror or e}.") from e
  except safetensors.SafetensorError as e:
    raise containers.damaged(path, e) from e
  with file:
    yield Safetensors(path, file)


class Safetensors:
  """An open file with timm's keys: a `containers.Container`."""

  layout = layouts.TIMM

  def __init__(self, path: pathlib.Path, file: Any):
    """Reads the headers of all arrays and no data."""
    self.path = path
    self.metadata: dict[str, str] = file.metadata() or {}
    self._file = file
    self.headers = [_header(key, file.get_slice(key)) for key in file.keys()]  # noqa: SIM118

  def read(self, key: str, *, check_finite: bool = True) -> np.ndarray:
    """Reads one array; see `containers.Container`."""
    with np.errstate(over="ignore"):  # too large a float64 becomes infinite
      array = np.asarray(self._file.get_tensor(key), np.float32)
    if check_finite:
      containers.require_finite(self.path, key, array)
    return array


def _header(key: str, array: Any) -> containers.Header:
  code: str = array.get_dtype()
  numbers = _FLOATS | _INTEGERS
  dtype = numbers.get(code, code.lower())
  shape = tuple(array.get_shape())
  return containers.Header(key, shape, dtype, code in _FLOATS, code in numbers)


def write(
  path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes `arrays` as float32 in one step: if it fails, an earlier file stays.

  Args:
    path: The file to write; its folder is created if needed.
    arrays: Arrays of any memory order.
    metadata: Texts to write with them, besides the format that transformers asks for.

  Raises:
    UserError: The folder can't be created or written.
  """
  header: dict[str, Any] = {_METADATA: _FROM_TORCH | dict(metadata)}
  end = 0
  for key, array in arrays.items():
    start, end = end, end + math.prod(array.shape) * np.dtype(np.float32).itemsize
    header[key] = {"dtype": "F32", "shape": array.shape, "data_offsets": (start, end)}
  text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
  text += b" " * (-len(text) % _HEADER_ALIGNMENT)
  with containers.replacing(path) as temporary, temporary.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
      file.write(np.ascontiguousarray(array, "<f4").data)
