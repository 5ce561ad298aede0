"""Questions to JAX in another process: its answer, its errors, and when it hangs."""

import pytest

from bit_jax.runtime import device_probe


def test_the_devices_of_a_process_with_the_same_environment():
  found = device_probe.ask(300)
  assert found["devices"]["platform"] == "cpu"
  assert found["devices"]["count"] == 4
  assert found["dtype"] == "float32"
  assert found["settings"]["jax_enable_x64"] is False


def test_a_platform_that_is_absent(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "tpu")
  found = device_probe.ask(300)
  assert "JAX_PLATFORMS=tpu can't be used here" in found["error"]
  assert "devices" not in found


@pytest.mark.parametrize(
  ("code", "sentence"),
  [
    ("import time; time.sleep(600)", "JAX did not answer within 0.5 seconds."),
    ("import os; os.abort()", "JAX ended with status -6: no message"),
    (
      "raise ImportError('jaxlib is too old')",
      "JAX ended with status 1: ImportError: jaxlib is too old",
    ),
    ("print('{')", "JAX ended with status 0: no message"),
  ],
)
def test_no_answer(code, sentence, monkeypatch):
  monkeypatch.setattr(device_probe, "_ANSWER", code)
  assert device_probe.ask(0.5 if "sleep" in code else 300) == {"error": sentence}
