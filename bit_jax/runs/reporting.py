"""The reports of a running run: `metrics.jsonl`, printed progress, and TensorBoard events."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import tqdm
from clu import parameter_overview as clu_parameter_overview

from bit_jax.runs import metrics_log, tensorboard
from bit_jax.runtime import clock, files, phrases, processes

METRICS = "metrics.jsonl"
TEST, VAL = "eval", "val"  # kinds of evaluations: of the test images, and of a validation part
_NAMES = {TEST: "test", VAL: "validation"}
_PROFILED_FROM = 10  # steps after the first
_SILENCE = 60.0  # seconds without a line, where no terminal shows a bar


@dataclasses.dataclass(kw_only=True)
class Reporter:
  """Writes a run's metrics and shows its progress; a context manager.

  All processes of a run must create it together.

  Attributes:
    folder: The run folder; rows of its metrics after `first_step` are deleted.
    first_step: Steps done before.
    total_steps: Steps of the whole run.
    batch_size: Images in a step.
    step_clock: Measures the steps.
    profile: Whether to trace five steps, from the tenth after `first_step` on.
    quiet: Writes and shows nothing, as all processes but the first do.
    chooses_on: The kind of the evaluations by which a run chooses its weights.
    evaluations: {step: top-1 accuracy} of the recorded evaluations of that kind, in all processes
      those that the first one finds on record: they decide which steps are evaluated, and when
      patience is over.
  """

  folder: pathlib.Path
  first_step: int
  total_steps: int
  batch_size: int
  step_clock: clock.StepClock
  profile: bool = False
  quiet: bool = False
  chooses_on: str = TEST
  evaluations: dict[int, float] = dataclasses.field(init=False)

  def __post_init__(self) -> None:
    """Opens the files."""
    self._window = (self.step_clock.seconds, self.step_clock.steps)
    self._waited = 0.0  # seconds for input, since the last row
    self._last_line = time.monotonic()
    self._stack = contextlib.ExitStack()
    self._events: tensorboard.Events | None = None  # opened after the first step
    path = self.folder / METRICS
    rows, damaged = metrics_log.read(path)
    rows = [row for row in rows if self._is_kept(row)]
    ours = [[row["step"], row["top1"]] for row in rows if row["kind"] == self.chooses_on]
    self.evaluations = dict(processes.decided(lambda: ours))
    if self.quiet:
      return
    with files.replacing(path) as temporary:
      temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    self._metrics = self._stack.enter_context(path.open("a", encoding="utf-8"))
    bar = tqdm.tqdm(  # of a terminal only
      total=self.total_steps, initial=self.first_step, unit="step", dynamic_ncols=True, disable=None
    )
    self._bar = self._stack.enter_context(bar)
    if damaged:
      lines = phrases.counted(damaged, "damaged line")
      self.say(f"warning: {METRICS} has {lines} (probably a crash); the remaining rows are kept.")

  def _is_kept(self, row: Mapping[str, Any]) -> bool:
    """Returns whether a resumed run keeps a row: it will not write it again."""
    if row["kind"] == TEST != self.chooses_on:  # it evaluates the test images again at its end
      return False
    last = row["kind"] in _NAMES and row["step"] == self.total_steps  # it repeats this evaluation
    return bool(row["step"] <= self.first_step) and not last

  def _opened_events(self) -> tensorboard.Events:
    """Returns TensorBoard's events, opened after the first step: the import takes seconds."""
    if self._events is None:
      with self.step_clock.paused():
        profiled = self.first_step + _PROFILED_FROM if self.profile else None
        self._events = tensorboard.Events(self.folder, profiled=profiled, say=self.say)
      self._stack.callback(self._events.close)
    return self._events

  @contextlib.contextmanager
  def waiting_for_input(self) -> Iterator[None]:
    """Counts the time inside as spent on waiting for input."""
    started = time.monotonic()
    yield
    if self.step_clock.is_running:  # the share is one of the time that it counts
      self._waited += time.monotonic() - started

  def step(self, step: int) -> None:
    """Call after each step, with the number of steps done."""
    if self.quiet:
      return
    self._opened_events().step(step)
    self._bar.update(step - self._bar.n)
    if self._is_silent():
      left = (self.total_steps - step) * (self.step_clock.seconds_a_step or 0.0)
      self.say(f"{self._position(step)}  {clock.format_seconds(left)} left")

  def in_step(self, step: int, done: int, parts: int) -> None:
    """Call in a step computed in parts, with its number and the number of parts done."""
    if not self.quiet and self._is_silent():
      self.say(f"{self._position(step)}: {done} of {parts} micro-batches")

  def evaluating(self, num_images: int) -> Callable[[int], None]:
    """Returns a function to call with the number of images evaluated since its last call."""
    done = 0

    def count(more: int) -> None:
      nonlocal done
      done += more
      if not self.quiet and self._is_silent():
        self.say(f"evaluated {done:,} of {num_images:,} images")

    return count

  def _is_silent(self) -> bool:
    """Returns whether there is no bar, and nothing was printed for a while."""
    return bool(self._bar.disable) and time.monotonic() - self._last_line >= _SILENCE

  def _position(self, step: int) -> str:
    return f"step {step:>{len(str(self.total_steps))}}/{self.total_steps}"

  def train_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the means of the steps since the last call, with their speed.

    Args:
      step: Steps done.
      metrics: 'loss', 'top1' and so on.
    """
    seconds = self.step_clock.seconds - self._window[0]
    images = (self.step_clock.steps - self._window[1]) * self.batch_size
    speed = images / seconds if seconds > 0 else 0.0
    waiting = min(1.0, self._waited / seconds) if seconds > 0 else 0.0
    row = {**metrics, "images_per_second": speed, "input_wait_share": waiting}
    self._window, self._waited = (self.step_clock.seconds, self.step_clock.steps), 0.0
    pace = "(compiled)"
    if speed:
      left = clock.format_seconds((self.total_steps - step) * self.batch_size / speed)
      pace = f"{speed:,.0f} images/s  {waiting:.1%} waiting for input  {left} left"
    text = f"loss {metrics['loss']:.4f}  top-1 {metrics['top1']:6.1%}  {pace}"
    self._write(step, "train", row, f"{self._position(step)}  {text}")

  def eval_metrics(
    self, step: int, metrics: Mapping[str, float], num_images: int, kind: str = TEST
  ) -> None:
    """Writes an evaluation's means over `num_images` images of the test or validation part."""
    if kind == self.chooses_on:
      self.evaluations[step] = metrics["top1"]
    part = "" if self.chooses_on == TEST else f"{_NAMES[kind]} "
    top5 = f"  top-5 {metrics['top5']:.2%}" if "top5" in metrics else ""
    text = (
      f"step {step}: evaluated {num_images:,} {part}images: loss {metrics['loss']:.4f}  "
      f"top-1 {metrics['top1']:.2%}{top5}"
    )
    self._write(step, kind, metrics, text)

  def say(self, text: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    if not self.quiet:
      tqdm.tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()
      self._last_line = time.monotonic()

  def sync(self) -> None:
    """Waits until the rows are on the disk; to be called before a checkpoint that needs them."""
    if not self.quiet:
      files.sync(self._metrics)

  def _write(self, step: int, kind: str, metrics: Mapping[str, float], text: str) -> None:
    """Records the metrics, prints the text, and only then writes TensorBoard's events."""
    if self.quiet:
      return
    self._metrics.write(json.dumps({"step": step, "kind": kind, **metrics}) + "\n")
    self._metrics.flush()
    self.say(text)
    self._opened_events().write(step, {f"{kind}/{k}": v for k, v in metrics.items()})

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(self, *_: object) -> None:
    """Closes the files."""
    self._stack.close()


def parameter_overview(params: Mapping[str, Any], path: pathlib.Path) -> str:
  """Writes clu's overview of all parameters to a file; returns a line with their number.

  Args:
    params: Parameter tree of `models.ResNetV2`.
    path: The text file to write.
  """
  text = clu_parameter_overview.get_parameter_overview(params) + "\n"
  path.write_text(text, encoding="utf-8")
  leaves = jax.tree.leaves(params)
  total = f"{sum(x.size for x in leaves):,} parameters in {len(leaves)} arrays"
  return f"  {'network':<16}{total}, listed in {path.name}"
