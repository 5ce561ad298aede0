"""Settings of JAX and XLA that a run's numbers depend on, besides its config.

Settings that change random numbers, types or precision are fixed while this package computes.
Settings that change how programs are compiled are left to the user and recorded, as they change
rounding. Computing the same numbers each time needs an option of XLA on GPUs only.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from bit_jax.runtime import errors

_XLA_FLAGS = "XLA_FLAGS"
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# Each setting's value, and JAX's context manager for it if there is one.
_FIXED: dict[str, tuple[Any, Callable[[Any], Any] | None]] = {
  "jax_enable_x64": (False, jax.enable_x64),
  "jax_default_prng_impl": ("threefry2x32", jax.default_prng_impl),
  "jax_threefry_partitionable": (True, jax.threefry_partitionable),
  "jax_random_seed_offset": (0, None),
  "jax_default_matmul_precision": (None, jax.default_matmul_precision),
  "jax_numpy_dtype_promotion": ("standard", jax.numpy_dtype_promotion),
  "jax_numpy_rank_promotion": ("allow", jax.numpy_rank_promotion),
  "jax_allow_f16_reductions": (True, jax.allow_f16_reductions),
  "jax_disable_jit": (False, jax.disable_jit),
}
_FLAGS = (_XLA_FLAGS, "LIBTPU_INIT_ARGS")
_RECORDED = (
  *("JAX_COMPILER_ENABLE_REMAT_PASS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_ENABLE_PGLE"),
  *("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "JAX_MEMORY_FITTING_EFFORT", "JAX_MEMORY_FITTING_LEVEL"),
  *("JAX_OPTIMIZATION_LEVEL", "JAX_USE_DIRECT_LINEARIZE", "JAX_USE_SHARDY_PARTITIONER"),
  *("JAX_CUSTOM_VJP3", "JAX_REMAT3", "JAX_SCAN3", "EAGER_CONSTANT_FOLDING"),
  *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_DETERMINISTIC"),
  *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
  *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
)
# Prefixes of XLA flags that change no numbers.
_NO_EFFECT = (
  *("--xla_dump", "--xla_cpu_dump", "--xla_gpu_dump", "--xla_hlo_profile", "--xla_vlog"),
  *("--xla_force_host_platform_device_count", "--xla_gpu_cuda_data_dir"),
  *("--xla_gpu_force_compilation_parallelism", "--xla_gpu_per_fusion_autotune_cache"),
  *("--xla_gpu_memory_limit", "--xla_cpu_collective_", "--xla_gpu_collective_call_"),
)


@contextlib.contextmanager
def fixed() -> Iterator[None]:
  """Fixes the settings that numbers depend on in this thread, and restores the caller's at the end.

  Also works as a decorator: `@numerics.fixed()`.
  """
  with contextlib.ExitStack() as stack:
    for name in _others():
      value, scope = _FIXED[name]
      if scope is not None:
        stack.enter_context(scope(value))
      else:
        stack.callback(jax.config.update, name, getattr(jax.config, name))
        jax.config.update(name, value)
    yield


def ignored() -> str | None:
  """Returns a warning about user settings of JAX that `fixed` overrides; None if there are none."""
  others = _others()
  if not others:
    return None
  listed = ", ".join(
    f"{n.upper() if n.upper() in os.environ else n}={value} (used: {_FIXED[n][0]})"
    for n, value in others.items()
  )
  return f"warning: these settings of JAX would change results and are ignored: {listed}."


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
  """Returns the environment variables that may change rounding: {name: value}.

  Flags are sorted. Flags that don't change numbers are left out, such as dumps and the number of
  host devices.
  """
  found = {name: _effective(environment.get(name, "")) for name in _FLAGS}
  found |= {name: environment.get(name, "") for name in _RECORDED}
  return {name: value for name, value in found.items() if value}


def deterministic_variables() -> dict[str, str]:
  """Returns this process's XLA flags with the option for determinism added, as variables.

  Set them before the process first uses XLA, which reads them once.
  """
  return {_XLA_FLAGS: f"{os.environ.get(_XLA_FLAGS, '')} {_DETERMINISTIC}".strip()}


def deterministic_command() -> str:
  """Returns a shell command that adds the option for determinism to the flags of that shell."""
  return f'export {_XLA_FLAGS}="${{{_XLA_FLAGS}:-}} {_DETERMINISTIC}"'


def require_deterministic(platform: str) -> None:
  """Raises a `UserError` if a program on this platform wouldn't compute the same each time."""
  if platform == "gpu" and _DETERMINISTIC not in os.environ.get(_XLA_FLAGS, ""):
    raise errors.UserError(
      f"deterministic=True needs {_XLA_FLAGS}={_DETERMINISTIC} in the environment before the first "
      f"computation; python -m bit_jax.train sets it."
    )


def _others() -> dict[str, Any]:
  """Returns {setting: value} of the settings that differ from `_FIXED` in this thread."""
  current = {name: getattr(jax.config, name, value) for name, (value, _) in _FIXED.items()}
  return {name: value for name, value in current.items() if value != _FIXED[name][0]}


def _effective(text: str) -> str:
  """Returns the flags that may change numbers; the last one of repeated flags counts."""
  if text.strip() and not text.strip().startswith("-"):  # XLA also accepts a file name
    with contextlib.suppress(OSError, UnicodeDecodeError):
      text = pathlib.Path(text.strip()).read_text(encoding="utf-8")
  flags: dict[str, str] = {}
  for flag in text.split():
    name, equals, value = flag.partition("=")
    if not name.startswith(_NO_EFFECT):
      flags[name] = value if equals else "true"
  return " ".join(f"{name}={flags[name]}" for name in sorted(flags))
