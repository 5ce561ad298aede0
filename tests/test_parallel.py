"""The shares of processes, what devices hold, and what is placed on them."""

import types

import jax
import numpy as np
import psutil
import pytest

from bit_jax import parallel


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


def test_the_memory_of_a_device_is_what_it_says_itself(monkeypatch):
  class Device:
    def memory_stats(self):
      return {"bytes_limit": 10_000}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
  assert parallel.device_memory() == 10_000
  # The host keeps a copy.
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=5_000))
  assert parallel.device_memory() == 5_000


def test_cpu_devices_share_the_machine_s_memory_with_the_host(monkeypatch):
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=5_000))
  assert jax.local_device_count() == 4
  assert parallel.device_memory() == 1_000


def test_a_placed_set_is_on_every_device_unchanged():
  images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
  placed = parallel.place(images, np.array([1, 0], np.int32))
  assert len(placed.images.sharding.device_set) == jax.device_count() == 4
  np.testing.assert_array_equal(placed.images, images)
  np.testing.assert_array_equal(placed.labels, [1, 0])
