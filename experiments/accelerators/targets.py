"""The accelerators that programs are compiled for, without one: their devices and their memory."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import topologies

from bit_jax.runtime import errors

_PREALLOCATED = 0.75  # the share of a GPU's memory that JAX takes, by default
# XLA's GpuTargetConfigProto in text form, without what the supported GPUs have in common.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory}
  shared_memory_per_block_optin: {shared_memory_of_block}
  threads_per_core_limit: {threads}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2_cache}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {capability[0]} minor: {capability[1]} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{kind}"
"""


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of accelerator.

  Attributes:
    platform: 'gpu' or 'tpu'.
    memory: Bytes that programs may use on each device, as the device's `bytes_limit`.
    text: All that the compiler is told of it.
    devices: Returns compile-only devices, at least as many as asked for.
    package: What has its compiler.
  """

  platform: str
  memory: int
  text: str
  devices: Callable[[int], list[Any]]
  package: str


def _gpu(**fields: Any) -> Target:
  text = _GPU.format(**fields)

  def found(count: int) -> list[Any]:
    shape = f"1x1x{count}"
    return topologies.get_topology_desc("gpu", "cuda", target_config=text, topology=shape).devices

  return Target("gpu", int(_PREALLOCATED * fields["memory"]), text, found, "jax[cuda13]")


def _tpu(gibibytes: float, shapes: dict[int, str], **options: Any) -> Target:
  """Returns a kind of TPU.

  Args:
    gibibytes: Memory of a chip that its compiler allocates from.
    shapes: {number of chips: name of the topology}, rising.
    **options: Of the topology.
  """

  def found(count: int) -> list[Any]:
    name = next((name for chips, name in shapes.items() if chips >= count), None)
    if name is None:
      raise errors.UserError(f"At most {max(shapes)} devices of this kind can be compiled for.")
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # or it asks a server of Google's cloud where it is
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # only chips need it to be alone
    return topologies.get_topology_desc(name, "tpu", **options).devices

  memory = int(gibibytes * 2**30)
  return Target("tpu", memory, f"{memory} {shapes} {options}", found, "jax[tpu]")


_HOPPER = {
  "capability": (9, 0),
  "cores": 132,
  "fpus": 128,
  "threads": 2048,
  "clock": 1.98,
  "l2_cache": 52_428_800,
  "shared_memory": 233_472,
  "shared_memory_of_block": 232_448,
}
# Sources: openxla/xla, xla/backends/gpu/target_config/specs (a100_sxm_80, h100_sxm, h200); of the
# T4 NVIDIA's data sheet and the CUDA programming guide, compute capability 7.5. Memory of TPUs:
# what XLA's errors name as the limit.
TARGETS = {
  "t4": _gpu(
    kind="Tesla T4",
    capability=(7, 5),
    cores=40,
    fpus=64,
    threads=1024,
    clock=1.59,
    bandwidth=320_000_000_000,
    l2_cache=4_194_304,
    memory=15_843_721_216,
    shared_memory=65_536,
    shared_memory_of_block=65_536,
  ),
  "a100": _gpu(
    kind="NVIDIA A100-SXM4-80GB",
    capability=(8, 0),
    cores=108,
    fpus=64,
    threads=2048,
    clock=1.41,
    bandwidth=2_039_040_000_000,
    l2_cache=41_943_040,
    memory=85_100_068_864,
    shared_memory=167_936,
    shared_memory_of_block=166_912,
  ),
  "h100": _gpu(
    kind="NVIDIA H100 80GB HBM3",
    bandwidth=3_352_320_000_000,
    memory=84_942_979_072,
    **_HOPPER,
  ),
  "h200": _gpu(kind="NVIDIA H200", bandwidth=4_800_000_000_000, memory=151_397_597_184, **_HOPPER),
  "v4": _tpu(30.75, {4: "v4:2x2x1"}, chip_config_name="megacore"),
  "v5e": _tpu(15.75, {4: "v5e:2x2", 16: "v5e:4x4"}),
  "v5p": _tpu(95.74, {4: "v5p:2x2x1"}),
  "v6e": _tpu(31.25, {4: "v6e:2x2"}),
}


def devices(target: str, count: int) -> tuple[jax.Device, ...]:
  """Returns compile-only devices.

  Args:
    target: A key of `TARGETS`.
    count: Number of devices.

  Raises:
    UserError: The compiler for the target is not installed.
  """
  jax.devices()  # registers the plugins
  try:
    found = TARGETS[target].devices(count)
  except (RuntimeError, NotImplementedError, ImportError) as e:
    raise missing(target, str(e)) from e
  return tuple(found[:count])


def missing(target: str, reason: str) -> errors.UserError:
  """Returns the error that the compiler for a target is not installed."""
  return errors.UserError(
    f"Target {target} needs {TARGETS[target].package} in an environment of its own, which `make "
    f"accelerators` installs. Asked for its devices, JAX said: {reason}"
  )
