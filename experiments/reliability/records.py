"""Records of what was seen: lines of JSON, with their date and versions."""

import datetime
import json
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from bit_jax.runtime import installation


def made() -> dict[str, Any]:
  """Returns the date in UTC, the commit, and the versions of Python and of the dependencies."""
  return {
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    "commit": installation.commit(),
    "python": platform.python_version(),
    "packages": installation.versions(),
  }


def append(path: pathlib.Path, *records: Mapping[str, Any]) -> None:
  """Adds a line for each record to a file, with `made`."""
  with path.open("a", encoding="utf-8") as file:
    file.writelines(f"{json.dumps({**record, **made()})}\n" for record in records)
