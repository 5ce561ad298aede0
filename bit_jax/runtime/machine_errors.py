"""Errors that the machine caused: its disks, memory, limits and devices, not this code."""

import errno
import os
import re
import sys

from bit_jax.runtime import errors

# Errors of disks, file systems, permissions, limits and network storage.
_NAMES = (
  "EACCES EBUSY EDQUOT EFBIG EHOSTDOWN EIO EISDIR ELOOP EMFILE EMLINK ENAMETOOLONG ENFILE ENODEV "
  "ENOLCK ENOMEM ENOSPC ENOTCONN ENXIO EPERM EREMOTEIO EROFS ESTALE ETIMEDOUT EUCLEAN"
)
_NUMBERS = frozenset(getattr(errno, n, None) for n in _NAMES.split()) - {None}
_TENSORSTORE_ERROR = re.compile(r"os_error_code='(\d+)'")  # the library that writes checkpoints
# Texts of Python, C++ and libraries where memory or threads are lacking.
_LACK = re.compile("^RESOURCE_EXHAUSTED|can't start new thread|Resource temporarily unavailable")
_QUOTED = 200  # characters of them


def sentence(error: Exception) -> str | None:
  """Returns a sentence if the machine caused an error (a disk, a device), None if this code did.

  Any other `OSError`, such as of a file that doesn't exist, is a bug.
  """
  if found := cause(error):
    where = f"{found.filename}: " if found.filename else ""
    return f"{where}{found.strerror}. Fix this, then run the same command again."
  # JAX raises these where it finds no device. It takes seconds to import; most commands don't.
  if isinstance(error, AssertionError | RuntimeError) and "jax" in sys.modules:
    from bit_jax.runtime import devices

    try:
      devices.require()
    except errors.UserError as e:
      return str(e)
  return None


def cause(error: Exception) -> OSError | None:
  """Returns the error of the disk, file system, memory or limit behind an error; None without one.

  Its `filename` is None or text. tensorstore reports such errors as texts.
  """
  number, file = getattr(error, "errno", None), getattr(error, "filename", None)
  if found := _TENSORSTORE_ERROR.search(str(error)):
    number = int(found[1])
    file = path[1] if (path := re.search(r'"(/[^"]+)"', str(error))) else None
  elif isinstance(error, MemoryError) or _LACK.search(str(error)):
    what = errors.first_line(error) if str(error) else os.strerror(errno.ENOMEM)
    return OSError(errno.ENOMEM, what[:_QUOTED])
  if not isinstance(number, int) or number not in _NUMBERS:
    return None
  named = (os.fsdecode(file),) if isinstance(file, str | bytes) else ()
  return OSError(number, os.strerror(number), *named)
