"""Asks JAX for its devices in a process of its own, which is given up if it doesn't answer.

A driver that is broken, or a cluster that isn't there, can make JAX crash or wait for ever.
"""

import contextlib
import json
import os
import sys
from typing import Any

from bit_jax.runtime import subprocesses

_ANSWER = "from bit_jax.runtime import device_probe; device_probe.answer()"
# Settings of JAX by which results differ, as its config names them.
_PRECISION = ("jax_default_matmul_precision", "jax_enable_x64", "jax_numpy_dtype_promotion")


def ask(seconds: float) -> dict[str, Any]:
  """Returns what `answer` prints in another process, or 'error': a sentence on why there is none.

  Args:
    seconds: How long to wait for it.
  """
  # A running job may have all of the device's memory but a little.
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  ended = subprocesses.run([sys.executable, "-c", _ANSWER], seconds, environment)
  if ended is None:
    return {"error": f"JAX did not answer within {seconds:g} seconds."}
  with contextlib.suppress(ValueError, IndexError):
    found = json.loads(ended.output.splitlines()[-1])
    if isinstance(found, dict):
      return found
  last = (ended.errors.strip().splitlines() or ["no message"])[-1]
  return {"error": f"JAX ended with status {ended.status}: {last[:300]}"}


def answer() -> None:
  """Prints a JSON object: 'devices' by kind, 'settings' of precision, or 'error'."""
  import jax

  from bit_jax.runtime import devices, errors

  found: dict[str, Any] = {"settings": {k: getattr(jax.config, k, None) for k in _PRECISION}}
  try:
    devices.require()
    about = devices.describe()
    found["devices"] = {"platform": about.platform, "kind": about.kind, "count": about.count}
    found["devices"] |= {"free_bytes": about.bytes, "compute_capability": about.compute_capability}
    found["dtype"] = devices.compute_dtype("auto", about).name
    if remark := devices.remark():
      found["remark"] = remark
  except errors.UserError as e:
    found["error"] = str(e)
  print(f"\n{json.dumps(found)}", flush=True)
