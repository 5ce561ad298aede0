"""Compiles the training step for GPUs and TPUs on a machine without them.

    python -m experiments.accelerators.compile_step h100 --model=R50x1 --size=128 --batch=512
    python -m experiments.accelerators.compile_step v5e --model=R50x1 --size=128 --batch=128

XLA's compilers for GPUs and TPUs run on any machine. They show that the step compiles, its memory
on a device and its kernels; they show nothing of its time, as nothing runs. The step is that of
`bit_jax.train` in bfloat16, over all devices of the target.

Each compiler needs an environment of its own, as it must not be in one that trains on the CPU:

    python -m venv accelerators && accelerators/bin/pip install -e . 'jax[cuda13]'   # h100, 4 GB
    python -m venv accelerators && accelerators/bin/pip install -e . 'jax[tpu]'      # v5e

Traffic is the bytes of operands and results of all kernels (`traffic`), and is compared with what
a step in bfloat16 must move (`experiments.benchmarks.roofline`). Compiled on two CPU cores with jax
0.10.2, bfloat16, 1,000 classes, per device; + is without Triton's products, see below:

    target    model  pixels  images  arguments  temporaries  MB an image  of the ideal  kernels
    1 x H100  R50x1     128     512    0.24 GB      6.47 GB        109.1         1.05    1,405
    8 x H100  R50x1     480      64+   0.24 GB     11.59 GB      1,585.5         1.10    1,633

Without a GPU to tune on, XLA may report "Couldn't find output tile sizes" for large products; this
disables their Triton kernels: XLA_FLAGS=--xla_gpu_enable_triton_gemm=false.
"""

import argparse
import collections
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bit_jax import hyperrule
from bit_jax.models import resnet_v2
from bit_jax.runtime import devices, exits, numerics
from bit_jax.training import memory, optimizer, programs, steps
from experiments.accelerators import targets, traffic
from experiments.benchmarks import roofline

_CLASSES = 1000
_KINDS = 8  # of kernels, in the report: those that move most


def compile_step(
  model: resnet_v2.ResNetV2, size: int, batch: int, found: tuple[jax.Device, ...]
) -> Any:
  """Returns the compiled training step (`jax.stages.Compiled`).

  Args:
    model: The network.
    size: Side of the crop in pixels.
    batch: Images on each device.
    found: Compile-only devices.
  """
  resize = hyperrule.resize_for(size)
  task = memory.Task(model, resize, size, (resize, resize))
  params = programs.parameter_shapes(model)
  opt_state = jax.eval_shape(optimizer.sgd(task.momentum).init, params)
  state = steps.TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)
  step: Any = programs.train_function(task, found)
  shapes = programs.argument_shapes(len(found), batch, task.source)
  return step.lower(state, *shapes).compile()


def report(compiled: Any, images: int, ideal: float) -> str:
  """Returns a compiled step's memory, traffic, kernels and, if XLA counts them, operations.

  Args:
    compiled: The step.
    images: Images on each device.
    ideal: Bytes that a step must move for each of them.
  """
  used, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
  kernels = list(traffic.kernels(compiled.as_text()))
  opcodes = collections.Counter(kernel.opcode for kernel in kernels)
  moved = sum(kernel.bytes for kernel in kernels) / images
  lines = [
    f"arguments    {used.argument_size_in_bytes / 1e9:8.2f} GB",
    f"temporaries  {used.temp_size_in_bytes / 1e9:8.2f} GB",
    f"traffic      {moved / 1e6:8.1f} MB an image: {moved / ideal:.2f} times {ideal / 1e6:.1f} MB",
    f"kernels      {len(kernels):8,}    "
    + ", ".join(f"{count:,} {opcode}" for opcode, count in opcodes.most_common(6)),
  ]
  for kind, count, total in traffic.by_kind(kernels)[:_KINDS]:
    lines.append(f"             {total / images / 1e6:8.1f} MB an image by {count:,} {kind}")
  if flops := costs.get("flops"):
    lines.append(f"operations   {flops / 1e12:8.2f} TFLOP")
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  """Compiles the step of a command line, and prints what the compiler reports.

  Raises:
    UserError: The model is unknown, or the target's compiler is not installed.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("target", choices=targets.TARGETS)
  parser.add_argument("--model", default="R50x1")
  parser.add_argument("--size", type=int, default=128, help="side of the crop in pixels")
  parser.add_argument("--batch", type=int, default=512, help="images on each device")
  parser.add_argument("--devices", type=int, default=1, help="number of devices")
  options = parser.parse_args(argv[1:])
  devices.use_cpu()
  found = targets.devices(options.target, options.devices)
  hardware = devices.describe(found)
  dtype = devices.compute_dtype("auto", hardware)
  model = resnet_v2.create(options.model, _CLASSES, dtype, hardware.platform)
  began = time.monotonic()
  with numerics.fixed():
    compiled = compile_step(model, options.size, options.batch, found)
  print(
    f"{options.model}, {options.size} pixels, {options.batch} images, {dtype.name}: compiled for "
    f"{len(found)} x {found[0].device_kind} in {time.monotonic() - began:.0f} s"
  )
  operations = roofline.operations(model.architecture, options.size, options.batch, training=True)
  print(report(compiled, options.batch, sum(operation.bytes for operation in operations)))


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
