"""What a run reports while it runs: `metrics.jsonl`, progress, and TensorBoard's events."""

import contextlib
import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Self

import jax
import tqdm
from clu import parameter_overview as parameter_overview_lib

from bit_jax.runs import metrics_log, tensorboard
from bit_jax.runtime import clock, files

METRICS = "metrics.jsonl"
TEST, VAL = "eval", "val"  # kinds of evaluations: of the test images, and of a validation part
_NAMES = {TEST: "test", VAL: "validation"}
_PROFILED_FROM = 10  # steps after the first
_SILENCE = 60.0  # seconds without a line, where no terminal shows a bar


class Reporter:
  """Writes a run's metrics and shows its progress; a context manager.

  Attributes:
    evaluations: {step: top-1 accuracy} of the evaluations on record that a run chooses by.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    first_step: int,
    total_steps: int,
    batch_size: int,
    log_every: int,
    step_clock: clock.StepClock,
    profile: bool = False,
    quiet: bool = False,
    chooses_on: str = TEST,
  ):
    """Opens the files.

    Args:
      folder: The run folder; what its metrics say of later steps than `first_step` is dropped.
      first_step: Steps done before.
      total_steps: Steps of the whole run.
      batch_size: Images in a step.
      log_every: Steps between two progress reports of clu.
      step_clock: What the steps took.
      profile: Whether to trace five steps, from the tenth after `first_step` on.
      quiet: Writes and shows nothing, as all processes but the first do.
      chooses_on: The kind of the evaluations that a run chooses by.
    """
    self._quiet = quiet
    self._batch_size, self._total_steps = batch_size, total_steps
    self._clock = step_clock
    self._window = (step_clock.seconds, step_clock.steps)
    self._waited = 0.0
    self._events: tensorboard.Events | None = None  # until they are open
    self._said = time.monotonic()
    self._stack = contextlib.ExitStack()
    self._chooses_on = chooses_on
    read = metrics_log.read(folder / METRICS)
    rows = _rows_until(read.rows, first_step, total_steps)
    if chooses_on != TEST:  # a resumed run evaluates the test images again at its end
      rows = [(text, row) for text, row in rows if row["kind"] != TEST]
    self.evaluations = {r["step"]: r["top1"] for _, r in rows if r["kind"] == chooses_on}
    if quiet:
      return
    self._metrics = self._stack.enter_context(_rewrite(folder / METRICS, rows))
    self._open_events = functools.partial(
      tensorboard.Events,
      folder,
      total_steps=total_steps,
      log_every=log_every,
      profiled=first_step + _PROFILED_FROM if profile else None,
      say=self.say,
    )
    self._bar = self._stack.enter_context(
      tqdm.tqdm(
        total=total_steps,
        initial=first_step,
        unit="step",
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
      )
    )
    if read.damaged:
      lines = "line" if read.damaged == 1 else "lines"
      self.say(
        f"warning: {METRICS} had {read.damaged} damaged {lines}, as after a power cut: what could "
        f"be read is kept."
      )

  def _require_events(self) -> tensorboard.Events:
    """Opens TensorBoard's events if need be: after the first step, which needn't wait for it."""
    if self._events is None:
      with self._clock.paused():
        self._events = self._open_events()
      self._stack.callback(self._events.close)
    return self._events

  @contextlib.contextmanager
  def waiting_for_input(self) -> Iterator[None]:
    """Counts the time inside as spent on waiting for input."""
    started = time.monotonic()
    with self._events.waiting_for_input() if self._events else contextlib.nullcontext():
      yield
    if self._clock.is_running:  # the share is one of the time that it counts
      self._waited += time.monotonic() - started

  def step(self, step: int) -> None:
    """To be called after each step, with the number of steps done."""
    if self._quiet:
      return
    self._require_events().step(step)
    self._bar.update(step - self._bar.n)
    if self._is_silent():
      left = (self._total_steps - step) * (self._clock.seconds_a_step or 0.0)
      self.say(f"{self._position(step)}  {clock.format_seconds(left)} left")

  def in_step(self, step: int, done: int, parts: int) -> None:
    """To be called in a step that is computed in parts, with its number and those that are done."""
    if not self._quiet and self._is_silent():
      self.say(f"{self._position(step)}: {done} of {parts} micro-batches")

  def evaluating(self, num_images: int) -> Callable[[int], None]:
    """Returns what is to be called with the number of images that were evaluated since the last."""
    done = 0

    def count(more: int) -> None:
      nonlocal done
      done += more
      if not self._quiet and self._is_silent():
        self.say(f"evaluated {done:,} of {num_images:,} images")

    return count

  def _is_silent(self) -> bool:
    """Returns whether there is no bar, and nothing was said for a while."""
    return bool(self._bar.disable) and time.monotonic() - self._said >= _SILENCE

  def _position(self, step: int) -> str:
    return f"step {step:>{len(str(self._total_steps))}}/{self._total_steps}"

  def train_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes the means of the steps since the last call, with the speed they had.

    Args:
      step: Steps done.
      metrics: 'loss', 'top1' and so on.
    """
    seconds = self._clock.seconds - self._window[0]
    images = (self._clock.steps - self._window[1]) * self._batch_size
    speed = images / seconds if seconds > 0 else 0.0
    waiting = min(1.0, self._waited / seconds) if seconds > 0 else 0.0
    row = {**metrics, "images_per_second": speed, "input_wait_share": waiting}
    self._window, self._waited = (self._clock.seconds, self._clock.steps), 0.0
    seconds_left = (self._total_steps - step) * self._batch_size / speed if speed else 0.0
    left = clock.format_seconds(seconds_left)
    pace = f"{speed:,.0f} images/s  {waiting:.1%} waiting for input  {left} left"
    told = (
      f"{self._position(step)}  loss {metrics['loss']:.4f}  top-1 {metrics['top1']:6.1%}  "
      f"{pace if speed else '(compiled)'}"
    )
    self._write(step, "train", row, told)

  def eval_metrics(
    self, step: int, metrics: Mapping[str, float], num_images: int, kind: str = TEST
  ) -> None:
    """Writes an evaluation's means over `num_images` images of the test or validation part."""
    if kind == self._chooses_on:
      self.evaluations[step] = metrics["top1"]
    part = "" if self._chooses_on == TEST else f"{_NAMES[kind]} "
    top5 = f"  top-5 {metrics['top5']:.2%}" if "top5" in metrics else ""
    told = (
      f"step {step}: evaluated {num_images:,} {part}images: loss {metrics['loss']:.4f}  "
      f"top-1 {metrics['top1']:.2%}{top5}"
    )
    self._write(step, kind, metrics, told)

  def say(self, text: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    if not self._quiet:
      tqdm.tqdm.write(text, file=sys.stdout)
      sys.stdout.flush()
      self._said = time.monotonic()

  def sync(self) -> None:
    """Waits until the rows are on the disk: a checkpoint that counts on them comes after them."""
    if not self._quiet:
      files.sync(self._metrics)

  def _write(self, step: int, kind: str, metrics: Mapping[str, float], told: str) -> None:
    """Records the metrics, tells of them, and only then sees to TensorBoard's events."""
    if self._quiet:
      return
    self._metrics.write(json.dumps({"step": step, "kind": kind, **metrics}) + "\n")
    self._metrics.flush()
    self.say(told)
    self._require_events().write(step, {f"{kind}/{k}": v for k, v in metrics.items()})

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Closes the files."""
    self._stack.close()


def parameter_overview(params: Mapping[str, Any], path: pathlib.Path) -> str:
  """Writes clu's overview of all parameters to a file; returns a line with their number.

  Args:
    params: Parameter tree of `models.ResNetV2`.
    path: The text file to write.
  """
  text = parameter_overview_lib.get_parameter_overview(params) + "\n"
  path.write_text(text, encoding="utf-8")
  leaves = jax.tree.leaves(params)
  total = f"{sum(x.size for x in leaves):,} parameters in {len(leaves)} arrays"
  return f"  {'network':<16}{total}, listed in {path.name}"


def _rows_until(
  rows: list[tuple[str, dict[str, Any]]], first_step: int, total_steps: int
) -> list[tuple[str, dict[str, Any]]]:
  """Returns the rows of a metrics file that a resumed run will not write again."""
  # A run that didn't finish repeats its last evaluations.
  last = [(kind, total_steps) for kind in _NAMES]
  return [(t, r) for t, r in rows if r["step"] <= first_step and (r["kind"], r["step"]) not in last]


def _rewrite(path: pathlib.Path, rows: list[tuple[str, dict[str, Any]]]) -> IO:
  """Makes the file hold these lines alone, and opens it to append."""
  with files.replacing(path) as temporary:
    temporary.write_text("".join(line for line, _ in rows), encoding="utf-8")
  return path.open("a", encoding="utf-8")
