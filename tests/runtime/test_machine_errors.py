"""Tests of bit_jax.runtime.machine_errors."""

import errno

import pytest

from bit_jax.runtime import machine_errors


@pytest.mark.parametrize(
  ("error", "beginning"),
  [
    (
      OSError(errno.ENOSPC, "No space left on device", "runs/x/model.npz"),
      "runs/x/model.npz: No sp",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Fix this"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", b"r\xe9"), "r\udce9: Disk quota exceeded. Fix"),
    (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), "a: Permission denied. F"),
    (OSError(errno.ESTALE, "Stale file handle", 3), "Stale file handle. Fix this"),
    (OSError(errno.EMFILE, "Too many open files", "f"), "f: Too many open files. Fix this"),
    (
      ValueError(
        'RESOURCE_EXHAUSTED: Error writing "opt_state" in OCDBT database at local file "/r/d/": '
        "Failed to write 3158016 bytes to file 7: No space left on device [os_error_code='28']"
      ),
      "/r/d/: No space left on device. Fix this",
    ),
    (MemoryError(), "Cannot allocate memory. Fix this"),
    (MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB. Fix this"),
    (RuntimeError("can't start new thread"), "can't start new thread. Fix this"),
    (RuntimeError("Resource temporarily unavailable"), "Resource temporarily unavailable. Fix"),
    (ValueError("RESOURCE_EXHAUSTED: Out of memory"), "RESOURCE_EXHAUSTED: Out of memory. Fix"),
  ],
)
def test_an_error_of_the_machine_is_a_sentence_that_says_how_to_resume(error, beginning):
  sentence = machine_errors.sentence(error)
  assert sentence.startswith(beginning)
  assert sentence.endswith("Fix this, then run the same command again.")
