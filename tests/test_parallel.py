"""The shares of processes, and sets that would not fit."""

import jax
import numpy as np
import pytest

from bit_jax import errors, parallel


def test_each_process_takes_its_rows(monkeypatch):
  rows = np.arange(8)[:, None]
  assert parallel.local_rows(rows[:4]).ravel().tolist() == [0, 1, 2, 3]
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert parallel.local_rows(rows).ravel().tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize(
  ("name", "dtype"), [("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")]
)
def test_compute_dtype_on_cpu(name, dtype):
  assert parallel.compute_dtype(name).name == dtype


def test_auto_is_bfloat16_on_accelerators(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert parallel.compute_dtype("auto").name == "bfloat16"


def test_a_set_too_large_for_a_device_is_refused(monkeypatch):
  class Device:
    def memory_stats(self):
      return {"bytes_limit": 10_000}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
  with pytest.raises(errors.UserError, match="too much for a device"):
    parallel.place(np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, np.int32))


def test_a_placed_set_is_on_every_device_unchanged():
  images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
  placed = parallel.place(images, np.array([1, 0], np.int32))
  assert len(placed.images.sharding.device_set) == jax.device_count() == 4
  np.testing.assert_array_equal(placed.images, images)
  np.testing.assert_array_equal(placed.labels, [1, 0])
