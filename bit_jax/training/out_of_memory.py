"""What happens when a run is out of memory: one sentence on what to try."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax

from bit_jax import hyperrule
from bit_jax.data import order
from bit_jax.run_config import RunConfig
from bit_jax.runtime import errors
from bit_jax.training import planning

SMALLER_SET = "a smaller --config.resident_share, or a smaller model"  # before a step is planned
_MESSAGES = ("RESOURCE_EXHAUSTED", "Out of memory")  # on an accelerator, on CPU


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether JAX or numpy raised an error because memory is short."""
  if isinstance(error, jax.errors.JaxRuntimeError):
    return any(text in str(error) for text in _MESSAGES)
  return isinstance(error, MemoryError)


@contextlib.contextmanager
def explained(explanation: str) -> Iterator[None]:
  """Replaces errors of JAX and numpy that mean "out of memory" by a sentence with this end.

  Raises:
    UserError: The block ran out of memory.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    if not is_out_of_memory(e):
      raise
    where = "This machine" if isinstance(e, MemoryError) else "A device"
    raise errors.UserError(f"{where} ran out of memory {explanation}") from e


def while_computing(config: RunConfig, batch: int, advice: str) -> str:
  """Returns the end of the sentence for `explained` in training or an evaluation.

  Args:
    config: Resolved.
    batch: Images of a step on each device.
    advice: What to try.
  """
  return f"with {config.model}, crop {config.crop} and {batch} images per device: try {advice}."


def after_training(folder: pathlib.Path) -> str:
  """Returns the end of the sentence for `explained` where only the result is left to write.

  Args:
    folder: The run folder.
  """
  return (
    f"while writing the result. Training is complete and saved in {folder}: free some memory, then "
    f"run the same command again to evaluate and write the result."
  )


def advice(plan: planning.Plan, config: RunConfig, platform: str) -> str:
  """Returns the next setting to try after a step ran out of memory, as a flag.

  Args:
    plan: The plan of the step.
    config: Resolved.
    platform: Of the devices.
  """
  sizes = order.micro_batch_sizes(plan.batch, config.mixup_alpha > 0)
  smaller = [m for m in sizes if m < plan.microbatch]
  if smaller:
    auto = "" if config.microbatch == hyperrule.AUTO else ", or 'auto' to find one that fits"
    return f"--config.microbatch={smaller[-1]} (now {plan.microbatch} images per device){auto}"
  if not plan.remat and platform != "cpu":
    return "--config.remat=True, which recomputes activations instead of keeping them"
  if config.momentum_dtype == "float32":
    return "--config.momentum_dtype=bfloat16, which halves the memory of momentum"
  if config.resident_share > 0:
    return f"--config.resident_share=0 (now {config.resident_share:g}), which streams the images"
  return f"a smaller --config.resize and --config.crop (now {config.resize} and {config.crop})"
