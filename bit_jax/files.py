"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path to write to, whose file takes the place of the one at `path` in one step.

  Where the block raises, what was at `path` stays as it was; after a power cut one of the two is
  there.
  """
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    yield temporary
    with temporary.open("rb") as file:  # else the name may reach the disk before the content does
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def remember(record: pathlib.Path, content: str | bytes) -> None:
  """Writes a record of the cache; where that can't be, what it holds costs time again, no more."""
  with contextlib.suppress(OSError):
    record.parent.mkdir(parents=True, exist_ok=True)
    with replacing(record) as temporary:
      temporary.write_bytes(content.encode() if isinstance(content, str) else content)
