"""The figures of a compiled program: its memory, what it moves, and what it would have to move."""

from typing import Any

from bit_jax.models import architectures
from bit_jax.training import planning
from experiments.accelerators import cases, traffic
from experiments.benchmarks import roofline

CLASSES = 1000
_PASSES_BYTES = 2 * 2 + 2 * 4  # that the passes over a micro-batch move for each parameter
_KINDS = 8  # of kernels: those that move most
FIELDS = ("arguments", "temporaries", "bytes", "moved", "kernels", "flops", "by_kind")


def figures(compiled: Any, images: int, platform: str) -> dict[str, Any]:
  """Returns a compiled program's memory, traffic, kernels and, if XLA counts them, operations.

  Args:
    compiled: The program.
    images: Images on each device.
    platform: That it is for.
  """
  used, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
  kernels = list(traffic.kernels(compiled.as_text()))
  in_kernels = sum(kernel.bytes for kernel in kernels)
  # TPU's layouts are padded and its kernels read from several memories: its compiler knows.
  moved = in_kernels if platform == "gpu" else costs["bytes accessed"]
  return {
    "arguments": used.argument_size_in_bytes,
    "temporaries": used.temp_size_in_bytes,
    "bytes": planning.program_bytes(compiled),
    "moved": moved / images,
    "kernels": len(kernels),
    "flops": costs.get("flops"),
    "by_kind": traffic.by_kind(kernels)[:_KINDS],
  }


def ideal_bytes(case: cases.Case, images: int, *, whole: bool) -> float:
  """Returns the bytes that the program must move for each image, in bfloat16.

  Args:
    case: The program.
    images: Images on each device.
    whole: Whether it is a whole training step. The passes over a micro-batch read bfloat16 kernels
      twice, and add gradients to float32 sums, in place of the update.
  """
  architecture, training = architectures.find(case.model), case.program == cases.TRAINING
  operations = roofline.operations(architecture, case.size, images, training=training)
  total = {operation.name: operation.bytes for operation in operations}
  if training and not whole:
    parameters = architectures.num_parameters(architecture, CLASSES)
    total["parameters"] = _PASSES_BYTES * parameters / images
  return sum(total.values())
