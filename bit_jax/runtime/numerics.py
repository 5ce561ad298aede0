"""Settings of JAX and variables of XLA that a run's numbers depend on, besides its config.

Settings that change which random numbers are drawn, or types and precision, are fixed while this
package computes. How programs are compiled is the user's choice: it is recorded, as it changes the
rounding.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

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
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_RECORDED = (
  *("JAX_COMPILER_ENABLE_REMAT_PASS", "JAX_DISABLE_MOST_OPTIMIZATIONS", "JAX_ENABLE_PGLE"),
  *("JAX_EXEC_TIME_OPTIMIZATION_EFFORT", "JAX_MEMORY_FITTING_EFFORT", "JAX_MEMORY_FITTING_LEVEL"),
  *("JAX_OPTIMIZATION_LEVEL", "JAX_USE_DIRECT_LINEARIZE", "JAX_USE_SHARDY_PARTITIONER"),
  *("JAX_CUSTOM_VJP3", "JAX_REMAT3", "JAX_SCAN3", "EAGER_CONSTANT_FOLDING"),
  *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "TF_CUDNN_DETERMINISTIC"),
  *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
  *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
)
# Flags of XLA that begin like this change no number.
_WITHOUT_EFFECT = (
  *("--xla_dump", "--xla_cpu_dump", "--xla_gpu_dump", "--xla_hlo_profile", "--xla_vlog"),
  *("--xla_force_host_platform_device_count", "--xla_gpu_cuda_data_dir"),
  *("--xla_gpu_force_compilation_parallelism", "--xla_gpu_per_fusion_autotune_cache"),
  *("--xla_gpu_memory_limit", "--xla_cpu_collective_", "--xla_gpu_collective_call_"),
)


@contextlib.contextmanager
def fixed() -> Iterator[None]:
  """Fixes the settings that numbers depend on, in this thread; restores the caller's at the end.

  Also a decorator: `@numerics.fixed()`.
  """
  with contextlib.ExitStack() as stack:
    for name in _others():
      value, scope = _FIXED[name]
      stack.enter_context(_updated(name, value) if scope is None else scope(value))
    yield


def ignored() -> str | None:
  """Returns a sentence on the settings of JAX that `fixed` does not follow; None without any."""
  others = _others()
  if not others:
    return None
  names = [n.upper() if n.upper() in os.environ else n for n in others]
  listed = ", ".join(
    f"{name}={value} (used: {_FIXED[option][0]})"
    for name, (option, value) in zip(names, others.items(), strict=True)
  )
  return f"warning: settings of JAX are ignored, as they would change the numbers: {listed}."


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
  """Returns the environment variables that may change the rounding: {name: value}.

  Flags are in a fixed order. Those that have no effect on numbers are left out, such as dumps and
  the number of host devices.
  """
  found = {name: _effective(environment.get(name, "")) for name in _FLAGS}
  found |= {name: environment.get(name, "") for name in _RECORDED}
  return {name: value for name, value in found.items() if value}


def _others() -> dict[str, Any]:
  """Returns {setting: value} of those that are set otherwise in this thread."""
  current = {name: getattr(jax.config, name, value) for name, (value, _) in _FIXED.items()}
  return {name: value for name, value in current.items() if value != _FIXED[name][0]}


@contextlib.contextmanager
def _updated(name: str, value: Any) -> Iterator[None]:
  settings: Any = jax.config  # it declares none of its own
  before = getattr(settings, name)
  settings.update(name, value)
  try:
    yield
  finally:
    settings.update(name, before)


def _effective(text: str) -> str:
  """Returns the flags that may change numbers; if a flag is repeated, the last one counts."""
  if text.strip() and not text.strip().startswith("-"):  # XLA takes the name of a file, too
    with contextlib.suppress(OSError, UnicodeDecodeError):
      text = pathlib.Path(text.strip()).read_text(encoding="utf-8")
  flags: dict[str, str] = {}
  for flag in text.split():
    name, equals, value = flag.partition("=")
    if not name.startswith(_WITHOUT_EFFECT):
      flags[name] = value if equals else "true"
  return " ".join(f"{name}={flags[name]}" for name in sorted(flags))
