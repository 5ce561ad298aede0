"""The description of devices, and the error where JAX can't use a platform."""

import importlib.util
import json
import types

import jax
import psutil
import pytest

from bit_jax.runtime import devices, errors

ASKED = """
import io, json, sys
import jax
from jax.extend import backend
from bit_jax.runtime import devices, exits

said = {}
for name in sys.argv[1].split():
  setting, _, value = name.partition("=")
  jax.config.update(setting, value)
  sys.stderr = io.StringIO()
  status = exits.run(lambda _: print(jax.numpy.zeros(1).device.platform, file=sys.stderr), [])
  said[name] = status, sys.stderr.getvalue()
  jax.config.update(setting, None)
  backend.clear_backends()
jax.config.update("jax_platforms", "cuda")
devices.use_cpu()
said["cpu"] = jax.default_backend()
print(json.dumps(said))
"""


@pytest.mark.slow
def test_every_platform_that_is_not_there_is_one_sentence(printed_by):
  unset = "jax_platforms=", "jax_platforms=cpu", "jax_platforms=cuda,cpu"
  gpus = "jax_platforms=cuda", "jax_platforms=gpu", "jax_platform_name=gpu"
  others = "jax_platforms=tpu", "jax_platforms=rocm", "jax_platforms=garbage", "jax_platforms=CPU"
  names = " ".join((*unset, *gpus, "jax_default_device=gpu", *others))
  setup = "import os, sys\nos.environ['JAX_PLATFORMS'] = ''\nsys.argv = ['', %r]\n"
  said = json.loads(printed_by(setup % names + ASKED))
  assert said.pop("cpu") == "cpu"
  if said[unset[0]] != [0, "cpu\n"]:
    pytest.skip("there is an accelerator here")
  assert [said.pop(name) for name in unset] == 3 * [[0, "cpu\n"]]
  assert {status for status, _ in said.values()} == {2}
  for name, (_, sentence) in said.items():
    setting, _, value = name.partition("=")
    variable = setting.upper()
    if setting != "jax_platform_name":  # which can be read from the environment only
      assert sentence.startswith(f"error: {variable}={value} can't be used here: "), name
      assert sentence.endswith(f", or unset {variable} to let JAX choose.\n"), name
    assert sentence.count("\n") == 1
  assert "no cuda device is visible" in said["jax_platforms=cuda"][1]
  assert "pip install -e '.[cuda]'" in said["jax_platforms=gpu"][1]
  assert "pip install -e '.[tpu]'" in said["jax_platforms=tpu"][1]
  assert "unknown platform 'garbage'" in said["jax_platforms=garbage"][1]
  assert "unknown platform 'CPU'" in said["jax_platforms=CPU"][1]


IN_USE = "The TPU is already in use by process with pid 12. Not attempting to load libtpu.so"
NO_MEMORY = "INTERNAL: failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY: out of memory"


@pytest.mark.parametrize(
  ("asked", "text", "sentence"),
  [
    (
      "tpu",
      f"Unable to initialize backend 'tpu': {IN_USE}. (set JAX_PLATFORMS='' to choose one)",
      f"JAX_PLATFORMS=tpu can't be used here: Unable to initialize backend 'tpu': {IN_USE}. "
      "Change it, or unset JAX_PLATFORMS to let JAX choose.",
    ),
    (
      None,
      f"Unable to initialize backend 'cuda': {NO_MEMORY} (you may need to uninstall the plugin)",
      f"JAX can't use a device that it found: Unable to initialize backend 'cuda': {NO_MEMORY} "
      "(CUDA_VISIBLE_DEVICES= hides every GPU). Free or repair the device, or set "
      "JAX_PLATFORMS=cpu to use the CPU.",
    ),
  ],
)
def test_of_a_device_that_fails_jax_s_own_reason_is_given(monkeypatch, asked, text, sentence):
  def fail(_):
    raise RuntimeError(text)

  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
  monkeypatch.setattr(devices, "_requested", lambda: asked and ("JAX_PLATFORMS", asked.split(",")))
  monkeypatch.setattr(jax, "device_put", fail)
  with pytest.raises(errors.UserError) as e:
    devices.require()
  assert str(e.value) == sentence


@pytest.mark.parametrize(
  ("asked", "plugin", "remark"),
  [
    ("cpu", True, None),
    ("cpu,cuda", True, None),
    (None, False, None),
    (None, True, "JAX's CUDA plugin is installed"),
    ("cuda,cpu", False, "JAX_PLATFORMS=cuda,cpu names cuda"),
  ],
)
def test_a_run_on_the_cpu_where_a_gpu_was_meant_says_so(monkeypatch, asked, plugin, remark):
  monkeypatch.setattr(devices, "_requested", lambda: asked and ("JAX_PLATFORMS", asked.split(",")))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: plugin)
  expected = remark and f"This run uses the CPU: {remark}, but no NVIDIA GPU is visible here."
  assert devices.remark() == expected


class Device:
  """A device of an accelerator, as JAX has it."""

  platform, device_kind = "gpu", "NVIDIA H100 80GB HBM3"

  def __init__(self, limit, in_use=0, process=0, capability=None):
    self._stats = {"bytes_limit": limit, "bytes_in_use": in_use}
    self.process_index = process
    if capability:  # CPUs and TPUs have none
      self.compute_capability = capability

  def memory_stats(self):
    if self.process_index:  # of another process, or compile-only
      raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: MemoryStats is only supported for ...")
    return self._stats


def test_the_cpu_devices_of_this_machine_are_described():
  found = devices.describe()
  assert (found.platform, found.bytes, found.count, found.local_count) == ("cpu", None, 4, 4)
  assert found == devices.describe(jax.devices())


def test_free_memory_is_that_of_the_local_device_with_the_least():
  cards = [Device(1000, 100), Device(1000, 400), Device(1000, 300), Device(10, process=1)]
  assert devices.describe(cards) == devices.Description("gpu", Device.device_kind, 600, 4, 3)


def test_the_memory_of_compile_only_devices_is_unknown(monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert devices.describe([Device(1000, process=1)]).bytes is None


@pytest.mark.parametrize(
  ("capabilities", "lowest"),
  [
    (("9.0", "10.0"), "9.0"),
    (("8.0", "7.5"), "7.5"),  # also if it belongs to another process, so that all agree
    (("gfx90a", "gfx90a"), None),  # ROCm
    ((None, None), None),
  ],
)
def test_the_lowest_compute_capability_of_all_processes(capabilities, lowest):
  ours, other = capabilities
  cards = [Device(1000, capability=ours), Device(1000, process=1, capability=other)]
  assert devices.describe(cards).compute_capability == lowest


@pytest.mark.parametrize(
  ("name", "platform", "capability", "dtype"),
  [
    ("auto", "cpu", None, "float32"),
    ("auto", "tpu", None, "bfloat16"),
    ("auto", "gpu", None, "bfloat16"),
    ("auto", "gpu", "7.0", "float32"),
    ("auto", "gpu", "7.5", "float32"),
    ("auto", "gpu", "8.0", "bfloat16"),
    ("auto", "gpu", "8.6", "bfloat16"),
    ("auto", "gpu", "10.0", "bfloat16"),
    ("float32", "gpu", "9.0", "float32"),
    ("bfloat16", "cpu", None, "bfloat16"),
    ("bfloat16", "gpu", "7.5", "bfloat16"),
  ],
)
def test_compute_dtype(name, platform, capability, dtype):
  described = devices.Description(platform, "Tesla T4", None, 1, 1, capability)
  assert devices.compute_dtype(name, described).name == dtype
  remark = devices.dtype_remark(name, described)
  if name == "auto" and platform == "gpu" and dtype == "float32":
    assert f"computes in float32: Tesla T4, compute capability {capability}, has no" in remark
  else:
    assert remark is None


def test_a_resident_set_must_fit_on_the_device_and_the_host(monkeypatch):
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=5_000))
  for free, room in ((4_000, 4_000), (10_000, 5_000)):  # the host keeps a copy
    assert devices.resident_memory(devices.describe([Device(free)])) == room
  assert devices.resident_memory(devices.describe()) == 1_000  # 4 CPU devices and the host
