"""What `list` and `inspect` print: the catalogue, and the contents of one file, line by line."""

import fnmatch
import pathlib
from collections.abc import Iterator

import numpy as np

from bit_jax.weights import catalogue, checkpoints, fetch, npz


def catalogue_lines(pattern: str) -> Iterator[str]:
  """Yields a table of the checkpoints whose name or file matches.

  Args:
    pattern: A shell pattern such as 'BiT-M-*', or a part of a name; '' for all.
  """
  wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
  entries = catalogue.CATALOGUE.values()
  found = [c for c in entries if any(fnmatch.fnmatch(s, wanted) for s in (c.name, c.file))]
  row = "{:44} {:8} {:>7} {:>13} {:>10} {:7} {}".format
  yield row("name", "network", "classes", "parameters", "size", "at hand", "trained on")
  for c in found:
    at_hand = "yes" if c.embedded or fetch.cached(c) else "no"
    size = f"{(2 if c.embedded else 4) * c.num_parameters / 1e6:,.1f} MB"
    count = f"{c.num_parameters:,}"
    yield row(c.name, c.architecture, c.num_classes, count, size, at_hand, c.note)
  yield f"{len(found)} of {len(entries)} checkpoints"


def content_lines(path: pathlib.Path) -> Iterator[str]:
  """Yields what an `.npz` file holds: architecture, head, and each array with its statistics.

  NaNs and foreign arrays are shown, not refused.

  Raises:
    UserError: The file is damaged or no `.npz`.
  """
  architecture, num_classes = checkpoints.infer(path)
  head = f"head of {num_classes} classes" if num_classes else "no head"
  yield f"{path}: {architecture or 'no known architecture'}, {head}"
  row = "{:60} {:18} {:8} {:>11} {:>11}".format
  yield row("name", "shape", "dtype", "mean", "std")
  with npz.open_archive(path) as archive:
    headers = npz.read_headers(archive)
    for header in headers:
      mean, std = "-", "-"
      if header.dtype.kind in "fiu" and header.size:
        array = npz.read_array(archive, header, check_finite=False)
        with np.errstate(all="ignore"):  # a NaN is shown, not warned of
          mean, std = f"{array.mean():.5g}", f"{array.std():.5g}"
      yield row(header.key, str(header.shape), str(header.dtype), mean, std)
  dtypes = ", ".join(sorted({str(h.dtype) for h in headers}))
  yield f"{len(headers)} arrays, {sum(h.size for h in headers):,} parameters, {dtypes}"
