"""Fine-tunes a BiT network: `python -m bit_jax.train --config=configs/cifar10.py`."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  # The other imports take seconds.
  exits.listen("Stopped; no step is lost. Run the same command again.")

import gc
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from bit_jax import run_config
from bit_jax.data import datasets, order
from bit_jax.models import resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runs import description, results
from bit_jax.runtime import (
  cluster,
  compile_cache,
  config_flags,
  devices,
  errors,
  exits,
  machine,
  meeting,
  numerics,
  paths,
  processes,
)
from bit_jax.training import fine_tuning, memory, planning

_HELP = """Fine-tunes a BiT network by BiT-HyperRule.

  python -m bit_jax.train --config=FILE[:key=value,...] [--config.field=value ...] [flags]

  --config=configs/cifar10.py:model=BiT-M-R101x3,shots=5,seed=1   a config file and its arguments
  --config.batch_size=128    any field of RunConfig in bit_jax/run_config.py
  --workdir=DIR              the run folder; default: runs/<config>-<model>-<shots>-s<seed>-<hash>
  --dry_run                  print the resolved rule and stop
  --distributed              one of several processes, which find each other through the cluster's
                             environment (TPU pod, Slurm, Open MPI), or JAX_COORDINATOR_ADDRESS,
                             JAX_NUM_PROCESSES and JAX_PROCESS_ID
"""

_DISTRIBUTED = re.compile("--?distributed(=(true|t|1))?", re.IGNORECASE)


def main(argv: Sequence[str]) -> None:
  """Parses the command line, resolves the config, prints the rule, and trains.

  Raises:
    UserError: Something about the command line, config, data, weights or folder can't be used.
  """
  if any(a.lstrip("-") in ("help", "h", "helpfull") for a in argv[1:]):
    print(_HELP)
    return
  if any(_DISTRIBUTED.fullmatch(a) for a in argv[1:]):
    with processes.joined() as others:  # first: they end if this one's command line is wrong
      _run(argv, others)
  else:
    if not jax.distributed.is_initialized():
      cluster.require_alone()
    _run(argv, None)


def _run(argv: Sequence[str], others: meeting.Meeting | None) -> None:
  values = flags.FlagValues()
  workdir = flags.DEFINE_string("workdir", None, "run folder", flag_values=values)
  dry_run = flags.DEFINE_bool("dry_run", False, "print the rule and stop", flag_values=values)
  flags.DEFINE_bool("distributed", False, "many processes", flag_values=values)  # read above
  request = config_flags.parse(values, argv)
  if request is None:
    raise errors.UserError("No config given: give one, such as --config=configs/quickstart.py.")
  if workdir.value and workdir.value.startswith("--"):  # the next flag was read as its value
    raise errors.UserError(f"--workdir needs a folder, not {workdir.value!r}: --workdir=DIR.")
  if workdir.value:
    paths.named(workdir.value)  # a mistake is reported before data is scanned

  config, data = run_config.prepare(request)
  if config.deterministic:
    os.environ.update(numerics.deterministic_variables())
  machine.keep_freed_memory()
  if others is not None:
    others.start_jax()
  devices.require()  # first: JAX reports a second platform that is absent only once
  folder = workdir.value or run_config.default_workdir(config)
  first = jax.process_index() == 0
  if first:
    print(f"{config.name}: {config.model}, weights {config.weights}, head {config.head}")
    print(description.rule(config, data.spec, jax.device_count()), flush=True)
    if remark := devices.remark():
      print(remark, flush=True)
  if dry_run.value:
    layout = order.device_layout(config.batch_size, jax.device_count(), config.mixup_alpha > 0)
    planning.require_microbatch(config, layout.shape[1])
    hardware = devices.describe()
    print(f"  {'memory':<16}{_memory_estimate(config, data.spec, hardware)}")
    if remark := devices.dtype_remark(config.dtype, hardware):
      print(remark)
    for line in description.expected(config, data):
      print(line)
    print(json.dumps(config.to_dict(), indent=2))
    return
  if (remark := compile_cache.keep()) and first:
    print(remark)
  result = fine_tuning.run(config, data, folder)
  if first:
    _report(folder, config.name, result)


@numerics.fixed()
def _memory_estimate(
  config: RunConfig, spec: datasets.DatasetSpec, hardware: devices.Description
) -> str:
  dtype = devices.compute_dtype(config.dtype, hardware)
  model = resnet_v2.create(config.model, spec.num_classes, dtype, hardware.platform)
  task = memory.task(config, model, spec.device_size(config.train_size))
  return memory.estimate(task, config.batch_size // jax.device_count())


def _report(folder: str, name: str, result: dict[str, Any]) -> None:
  print(f"\n{results.summary(folder, result)}")
  if name == "quickstart":
    python = os.path.relpath(sys.executable) if sys.prefix != sys.base_prefix else "python"
    print(
      "Next, compare with a run from random initialisation:\n"
      f"  {python} -m bit_jax.train --config=configs/quickstart.py:weights=none"
    )


if __name__ == "__main__":
  gc.freeze()  # the libraries stay: collections while a large folder is read needn't visit them
  gc.set_threshold(20_000)  # tracing creates 100,000 objects that stay as well
  exits.leave(exits.run(main, sys.argv, needs_reader=False))
