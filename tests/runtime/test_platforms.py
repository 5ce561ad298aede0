"""Tests of bit_jax.runtime.platforms: what becomes of a platform that JAX can't use."""

import json

import jax
import pytest

from bit_jax.runtime import errors, platforms

ASKED = """
import io, json, sys
import jax
from jax.extend import backend
from bit_jax.runtime import exits, platforms

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
platforms.use_cpu()
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
      assert "JAX finds cpu here." in sentence
    assert sentence.count("\n") == 1
  assert "no NVIDIA GPU is visible" in said["jax_platforms=cuda"][1]
  assert "pip install -e '.[cuda]'" in said["jax_platforms=gpu"][1]
  assert "pip install -e '.[tpu]'" in said["jax_platforms=tpu"][1]
  assert "there is no platform 'garbage'" in said["jax_platforms=garbage"][1]
  assert "(did you mean 'cpu'?)" in said["jax_platforms=CPU"][1]


IN_USE = "The TPU is already in use by process with pid 12. Not attempting to load libtpu.so"
NO_MEMORY = "INTERNAL: failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY: out of memory"


@pytest.mark.parametrize(
  ("asked", "text", "sentence"),
  [
    (
      "tpu",
      f"Unable to initialize backend 'tpu': {IN_USE}. (set JAX_PLATFORMS='' to choose one)",
      f"JAX_PLATFORMS=tpu can't be used here: Unable to initialize backend 'tpu': {IN_USE}. JAX "
      "finds cpu here. Change it, or unset JAX_PLATFORMS to let JAX choose.",
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
  monkeypatch.setattr(platforms, "_settings", lambda: {"jax_platforms": asked})
  monkeypatch.setattr(platforms, "_available", lambda: "JAX finds cpu here.")
  monkeypatch.setattr(jax, "device_put", fail)
  with pytest.raises(errors.UserError) as e:
    platforms.require()
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
  monkeypatch.setattr(platforms, "_settings", lambda: {"jax_platforms": asked})
  monkeypatch.setattr(platforms, "_has_cuda_plugin", lambda: plugin)
  expected = remark and f"This run uses the CPU: {remark}, but no NVIDIA GPU is visible here."
  assert platforms.remark() == expected
