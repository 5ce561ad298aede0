"""How long a run will take, and settings that shorten a long one."""

from collections.abc import Callable

from bit_jax import hyperrule
from bit_jax.models import architectures
from bit_jax.run_config import RunConfig
from bit_jax.runtime import clock

_LONG = 3600.0  # seconds
_SHORT, _FEWEST = 600.0, 100  # seconds and steps that a first try should have
_SIZES = ((160, 128), (80, 64), (40, 32))  # resize and crop; the rule's for small images is first
_BATCH = 128  # that of the preset readme_128
_SMALLEST = "R14x0.5"
_SLOW = 10.0  # seconds; a measurement of this length is enough


class Pace:
  """Reports once how long a run takes, as soon as that is known."""

  def __init__(self, config: RunConfig, first: int, say: Callable[[str], None]):
    """Starts with nothing measured.

    Args:
      config: Resolved.
      first: Steps done before.
      say: Prints a line.
    """
    self._config, self._first, self._say = config, first, say
    self._began: float | None = None
    self._reported = False

  def part_of_first_step_done(self, done: int, parts: int, now: float) -> None:
    """Reports the pace in the first step, which may take minutes.

    Args:
      done: Micro-batches that are computed, from 1 on.
      parts: Micro-batches of a step.
      now: Seconds of any clock.
    """
    if self._began is None:
      self._began = now  # the first micro-batch was compiled, which is not timed
    elif not self._reported and now - self._began >= _SLOW:
      self._report((now - self._began) / (done - 1) * parts, self._first)

  def is_due(self, done: int) -> bool:
    """Returns whether `step_done` may report after a step: the second or the third."""
    return not self._reported and 1 < done - self._first <= 3

  def step_done(self, done: int, seconds_a_step: float | None) -> None:
    """Reports the pace after the third step, or after the second if that took long."""
    if seconds_a_step is not None and (done - self._first == 3 or seconds_a_step >= _SLOW):
      self._report(seconds_a_step, done)

  def _report(self, seconds_a_step: float, done: int) -> None:
    self._reported = True
    if done < self._config.total_steps:
      for line in report(seconds_a_step, done, self._config):
        self._say(line)


def report(seconds_a_step: float, done: int, config: RunConfig) -> list[str]:
  """Returns lines on the duration of a run, with advice if it takes hours.

  Args:
    seconds_a_step: As measured.
    done: Steps taken, fewer than all.
    config: Resolved.
  """
  every, total = config.eval_every, config.total_steps
  left, evaluations = total - done, total // every - done // every + bool(total % every)
  seconds = seconds_a_step * left
  steps = "last step takes" if left == 1 else f"{left:,} steps left take"
  number = "1 evaluation" if evaluations == 1 else f"{evaluations:,} evaluations"
  time = clock.format_seconds(max(1.0, seconds))
  lines = [
    f"About {_pace(seconds_a_step)} a step: the {steps} about {time}, {number} not included."
  ]
  if seconds >= _LONG:
    flags, seconds = shorter(seconds_a_step, config)
    is_smallest = architectures.find(config.model).name == _SMALLEST
    smaller = "" if is_smallest else f" A smaller model takes less time, too: {_SMALLEST}."
    lines.append(
      f"For a first result in about {clock.format_seconds(seconds)} on this machine, at a cost in "
      f"accuracy: {' '.join(flags)}.{smaller}"
    )
  return lines


def shorter(seconds_a_step: float, config: RunConfig) -> tuple[list[str], float]:
  """Returns flags that shorten a run, and roughly the seconds that its steps then take.

  The batch is reduced to that of the preset 'readme_128', then the image size as far as needed, and
  then the number of steps. The cost of a step is assumed to be proportional to its pixels. A
  warm-up or micro-batch that would not fit the shorter run is changed as well.

  Args:
    seconds_a_step: As measured with the config.
    config: Resolved.
  """
  batch_flags = []
  if config.batch_size > _BATCH:
    batch_flags = ["--config.preset=readme_128", f"--config.batch_size={_BATCH}"]
    if config.microbatch != hyperrule.AUTO:  # its number needn't divide the smaller batch
      batch_flags.append(f"--config.microbatch={hyperrule.AUTO}")
  cost = seconds_a_step * min(1.0, _BATCH / config.batch_size)
  size_flags: list[str] = []
  crop = config.crop
  for smaller, its_crop in _SIZES:
    if cost * min(_FEWEST, config.total_steps) <= _SHORT:
      break
    if its_crop < crop:
      size_flags = [f"--config.resize={smaller}", f"--config.crop={its_crop}"]
      cost, crop = cost * (its_crop / crop) ** 2, its_crop
  steps = max(1, min(config.total_steps, int(_SHORT / cost)))
  step_flags = [f"--config.total_steps={steps}"]
  if config.warmup_steps > steps:  # one that the user set is not shortened, and would be refused
    warmup = config.warmup_steps * steps // config.total_steps
    step_flags.append(f"--config.warmup_steps={warmup}")
  return [*step_flags, *batch_flags, *size_flags], steps * cost


def _pace(seconds: float) -> str:
  if seconds >= 99.5:
    return clock.format_seconds(seconds)
  return f"{seconds:.2g} s" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
