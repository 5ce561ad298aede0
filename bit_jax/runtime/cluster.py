"""The place of this process among several: from JAX's variables, or those of a cluster."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

from bit_jax.runtime import errors

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_BIND = "JAX_COORDINATOR_BIND_ADDRESS"
_SECONDS = 300  # a TPU pod may wait for its first machine to be known
_PORTS = range(1, 2**16)
# Numbers of tasks that launchers set for each of them; an allocation alone sets none of these.
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


@dataclasses.dataclass(frozen=True)
class Place:
  """The place of a process.

  Attributes:
    host: The machine of process 0.
    port: Its port, where the processes meet.
    count: Number of processes.
    index: The number of this one, from 0.
    device_ids: Local devices that this process uses; None: all.
    bind_port: The port that process 0 listens at, if it is another one: behind a forwarded port.
  """

  host: str
  port: int
  count: int
  index: int
  device_ids: tuple[int, ...] | None = None
  bind_port: int | None = None

  @property
  def fault(self) -> str | None:
    """What is wrong with the number of this process; None if nothing is."""
    if self.index < self.count:
      return None
    return (
      f"{INDEX}={self.index} is not one of {self.count}: processes are numbered from 0 to "
      f"{self.count - 1}, as {COUNT}={self.count} says."
    )

  @property
  def address(self) -> str:
    """Host and port."""
    return f"{self.host}:{self.port}"


def require_alone(environment: Mapping[str, str] = os.environ) -> None:
  """Raises a `UserError` if variables say that this is one of several processes."""
  name = next((n for n in (COUNT, *_TASKS) if _several(environment.get(n))), None)
  if name is None and _in_step(environment) and _several(environment.get("SLURM_NTASKS")):
    name = "SLURM_NTASKS"
  if name is None and environment.get(ADDRESS) and environment.get(COUNT) is None:
    name = ADDRESS
  if name is not None:
    raise errors.UserError(
      f"{name}={environment[name]} says that this is one of several processes, which would each "
      f"run alone: add --distributed to run as one, or unset {name}."
    )


def _several(number: str | None) -> bool:
  return number is not None and number.strip() not in ("", "0", "1")


def _in_step(environment: Mapping[str, str]) -> bool:
  """Returns whether `srun` started this process; its own count precedes the allocation's."""
  return "SLURM_STEP_NODELIST" in environment and "SLURM_STEP_NUM_TASKS" not in environment


def find(environment: Mapping[str, str] = os.environ) -> Place:
  """Returns the place of this process.

  Raises:
    UserError: A variable is missing or has a value that can't be used.
  """
  address, number, index = (environment.get(n) or None for n in (ADDRESS, COUNT, INDEX))
  if address is not None:
    _split(address, ADDRESS)
  given = address, _whole(number, COUNT, 1), _whole(index, INDEX, 0)
  ids = None if None not in given else _detect(given)
  address, count, position = given if ids is None else ids[:3]
  missing = [
    name for name, value in ((ADDRESS, address), (COUNT, count), (INDEX, position)) if value is None
  ]
  if missing or address is None or count is None or position is None:
    raise errors.UserError(
      f"--distributed can't tell which processes there are: {' and '.join(missing)} "
      f"{'is' if len(missing) == 1 else 'are'} not set, and no cluster that JAX knows (TPU pod, "
      f"Slurm, Open MPI, Kubernetes) is found. Set {ADDRESS} to host:port of the first process, "
      f"{COUNT}, and {INDEX} from 0."
    )
  host, port = _split(address, ADDRESS)
  bind = environment.get(_BIND)
  bind_port = _split(bind, _BIND)[1] if bind else None
  return Place(host, port, count, position, None if ids is None else ids[3], bind_port)


def _split(address: str, name: str) -> tuple[str, int]:
  host, colon, port = address.strip().rpartition(":")
  if not colon or not host or "]" in port:
    raise errors.UserError(
      f"{name}={address} has no port: give host:port of the first process, such as "
      f"{address.strip().rstrip(':')}:1234."
    )
  if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) not in _PORTS:
    raise errors.UserError(
      f"{name}={address} has the port {port!r}: it must be a number from 1 to {_PORTS[-1]}."
    )
  return host, int(port)


def _whole(text: str | None, name: str, least: int) -> int | None:
  if text is None:
    return None
  if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text) < least:
    raise errors.UserError(f"{name}={text} must be a whole number, {least} or more.")
  return int(text)


_Found = tuple[str | None, int | None, int | None, tuple[int, ...] | None]


def _detect(given: tuple[str | None, int | None, int | None]) -> _Found:
  """Fills what is not given from the cluster that JAX finds.

  JAX has no public function for it: without this one, the variables must be set.
  """
  try:
    from jax._src import clusters

    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  except (ImportError, AttributeError):
    return (*given, None)
  try:
    address, count, index, ids = detect(*given, None, None, _SECONDS)
  except (ValueError, KeyError, RuntimeError, OSError) as e:
    raise errors.UserError(
      f"JAX can't tell from this cluster which processes there are ({errors.reason(e)}): set "
      f"{ADDRESS}, {COUNT} and {INDEX}."
    ) from e
  return address, count, index, _ids(ids)


def _ids(found: Sequence[int] | int | None) -> tuple[int, ...] | None:
  if found is None:
    return None
  return (found,) if isinstance(found, int) else tuple(found)
