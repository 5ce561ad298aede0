"""Programs and arrays over all devices of all processes; the one module that calls `jax.pmap`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"  # the axis name of collectives such as `jax.lax.pmean`
# Of arguments and results: 0 for a row on each device, None for the same value on all.
Axes = int | None | tuple[int | None, ...]


def over_devices(
  function: Callable[..., Any],
  in_axes: Axes,
  out_axes: Axes = 0,
  *,
  donate: int | tuple[int, ...] = (),
  static: int | tuple[int, ...] = (),
  devices: Sequence[jax.Device] | None = None,
) -> Callable[..., Any]:
  """Compiles a function to run on every device, with the axis name `AXIS`.

  Args:
    function: Computes one device's part.
    in_axes: For each argument that is not static: 0 if each device takes its row of it, None if
      all take the same.
    out_axes: For each result, likewise.
    donate: Positions of arguments whose memory the program may reuse; they are deleted.
    static: Positions of arguments that are part of the program.
    devices: The devices that it is compiled for; default: all. Compile-only ones will do.

  Returns:
    The function, with `lower` as `jax.jit` has it.
  """
  mapped: Callable[..., Any] = jax.pmap(
    function,
    AXIS,
    in_axes=in_axes,
    out_axes=out_axes,
    donate_argnums=donate,
    static_broadcasted_argnums=static,
    devices=devices,
  )
  return mapped


def local_rows(rows: np.ndarray) -> np.ndarray:
  """Returns this process's rows of an array [all devices, ...]: [local devices, ...]."""
  first = jax.process_index() * jax.local_device_count()
  return rows[first : first + jax.local_device_count()]


def replicate(tree: Any) -> Any:
  """Places host arrays on every device of this process, sharded as programs return results.

  The default sharding of `jax.device_put` differs: programs would be compiled a second time for it.
  """
  # On CPU the device may share the host array's memory. XLA never overwrites it: a program that the
  # array is donated to allocates its own.
  return jax.device_put(tree, _sharding(PartitionSpec()))


def send(tree: Any) -> Any:
  """Sends host arrays [local devices, ...] to the devices of this process, a row to each."""
  return jax.device_put(tree, _sharding(PartitionSpec(AXIS)))


@functools.partial(over_devices, in_axes=(None, 0))
def take(tree: Any, indices: jax.Array) -> Any:
  """Gathers rows of replicated arrays: each device takes its row of `indices` [devices, b]."""
  return jax.tree.map(lambda x: x[indices], tree)


def _sharding(spec: PartitionSpec) -> NamedSharding:
  return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), spec)
