"""`python -m bit_jax.train`, which writes to a file how many bytes of memory it uses.

    PYTHONMALLOC=malloc python -m experiments.reliability.observed FILE --config=...

The memory of a process holds pools of freed blocks, too, whose size goes up and down by hundreds of
MB. The C library counts what is in use; with PYTHONMALLOC=malloc Python's objects are among it.
Objects that refer to each other stay until Python's collector looks at the oldest, once in hundreds
of steps: here it does every few seconds.
"""

import ctypes
import gc
import pathlib
import runpy
import sys
import threading
import time

_INTERVAL, _COLLECTION = 0.05, 3.0  # seconds
_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Counts(ctypes.Structure):
  """What glibc's `mallinfo2` returns."""

  _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def used() -> int:
  """Returns the bytes that are allocated with the C library, of all threads."""
  mallinfo2 = ctypes.CDLL(None).mallinfo2
  mallinfo2.restype = _Counts
  found = mallinfo2()
  return int(found.uordblks + found.hblkhd)


def _write(path: pathlib.Path) -> None:
  collected = time.monotonic()
  with path.open("w") as file:
    while True:
      if time.monotonic() - collected > _COLLECTION:
        gc.collect()
        collected = time.monotonic()
      file.seek(0)
      file.write(f"{used():20}\n")
      file.flush()
      time.sleep(_INTERVAL)


if __name__ == "__main__":
  path = pathlib.Path(sys.argv.pop(1))
  threading.Thread(target=_write, args=(path,), daemon=True).start()
  runpy.run_module("bit_jax.train", run_name="__main__", alter_sys=True)
