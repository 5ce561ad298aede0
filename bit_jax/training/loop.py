"""The steps of a run, with its logs, evaluations and checkpoints."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np

from bit_jax.data import order
from bit_jax.inference import feeds, footprint, metrics
from bit_jax.inference.programs import Examples
from bit_jax.run_config import RunConfig
from bit_jax.runs import reporting, results
from bit_jax.runtime import (
  clock,
  devices,
  errors,
  exits,
  parallel,
  stopping,
)
from bit_jax.training import (
  agreement,
  batches,
  evaluation,
  finishing,
  memory,
  optimizer,
  pace,
  planning,
  programs,
  resuming,
  setup,
  steps,
  windows,
)


def _plan(run: setup.Run, say: Callable[[str], None]) -> tuple[planning.Plan, int]:
  """Returns how a step is computed, and the images of an evaluation's batch over all devices.

  The state and the data of the run must be on the devices.
  """
  c, (train_size, test_size) = run.config, run.image_sizes
  hardware = devices.describe()  # not as before the state and the data took their memory
  task = memory.task(c, run.model, train_size)
  budget = footprint.budget(hardware, task.state_bytes)
  plan = planning.plan(task, run.layout.shape[1], hardware, c, budget, say)
  eval_batch = footprint.batch(
    run.model,
    c.test_size,
    test_size,
    wanted=c.eval_batch_size,
    num_images=max(len(run.data.test), len(run.data.during)),  # both share the program
    budget=budget,
    count=hardware.count,
  )
  return planning.agreed(plan, eval_batch)


class Loop:
  """The changing part of a run: the state, and the metrics that are not yet written.

  Attributes:
    plan: How a step is computed.
  """

  def __init__(
    self,
    run: setup.Run,
    state: steps.TrainState,
    first: int,
    stop: stopping.StopRequest,
    step_clock: clock.StepClock,
    reporter: reporting.Reporter,
    checkpoints: resuming.Checkpoints,
    window: list[Any],
  ):
    """Takes the state after step `first`; places the data on the devices and plans a step.

    Args:
      run: The run.
      state: On the devices.
      first: Steps done.
      stop: Requests to stop.
      step_clock: Measures the steps.
      reporter: Reports them.
      checkpoints: Keeps the state.
      window: Metrics of the last steps, which are not logged yet.
    """
    c = run.config
    self._run, self._state, self._first, self._stop = run, state, first, stop
    self._clock, self._reporter, self._checkpoints = step_clock, reporter, checkpoints
    self._seed_key = jax.random.key(c.seed)
    self._examples, tests = feeds.Feed(run.data.train), feeds.Feed(run.data.test)
    during = tests if run.data.validation is None else feeds.Feed(run.data.validation)
    self._positions = parallel.send(run.layout.astype(np.int32))
    jax.block_until_ready(state)  # it counts as memory in use
    self.plan, eval_batch = _plan(run, reporter.say)
    reporter.say(self.plan.reason)
    if c.remat is True and run.model.platform == "cpu":
      reporter.say("warning: remat has no effect on CPU, where XLA recomputes nothing.")
    task = memory.task(c, run.model.clone(remat=self.plan.remat), run.image_sizes[0])
    self._train = (
      programs.train_function(task)
      if self.plan.at_once
      else programs.train_in_micro_batches(task, self.plan.microbatch, self._part_done)
    )
    self._rates = optimizer.learning_rates(c.base_lr, c.warmup_steps, c.decay_steps, c.total_steps)
    self._evaluator = evaluation.Evaluator(
      run,
      reporter,
      step_clock,
      tests,
      during,
      eval_batch,
      self._raise_not_finite,
      self._evaluated_batch,
    )
    self._pace = pace.Pace(c, first, reporter.say)
    self._window = window  # metrics of the steps since the last log
    self._newest: Any = None  # metrics of the newest step
    self._due: tuple[int, list[Any]] | None = None  # a log to be written: steps done, and window
    self._saved = first  # steps done in the last checkpoint
    self._startup: float | None = None  # seconds until the first step was done
    self._current = first  # the step that is computed, or was last, counted from 1
    self._has_evaluated = False
    self._vote = agreement.Vote() if jax.process_count() > 1 else None

  def run(self) -> int:
    """Takes the remaining steps, with logs, evaluations and checkpoints.

    Returns:
      The number of steps done in the end, fewer than planned if patience was exhausted.
    """
    c, first = self._run.config, self._first
    self._evaluator.recover(first)
    if first and first % c.eval_every == 0 and first < c.total_steps:
      self._evaluate(first)  # the run was stopped between saving and evaluating
    if self._evaluator.out_of_patience(first):
      return first
    self._nothing_unsaved("while the first step was compiled")
    self._reporter.say("Compiling the first step, which can take minutes.")
    examples = batches.of_steps(self._examples, c, self._run.layout, first)
    with contextlib.closing(examples):
      for done in range(first + 1, c.total_steps + 1):
        self._step(done - 1, examples)
        if done == first + 1:
          jax.block_until_ready(self._state)  # it was compiled, which is not timed
          self._startup = time.monotonic() - self._run.began
          self._stop.unsaved()
        self._clock.step_done()
        if self._after_step(done):
          return done
        if done == first + 1:
          self._stop_if_asked(f"after step {done}", done)  # before what takes seconds
          self._draw_augmented()
        elif self._pace.is_due(done):
          jax.block_until_ready(self._state)
          self._pace.step_done(done, self._clock.seconds_a_step)
        self._reporter.step(done)
        self._stop_if_asked(f"after step {done}", done)
    return c.total_steps

  def _step(self, step: int, examples: Iterator[Examples]) -> None:
    """Sends a step to the devices and waits for the one before."""
    c, self._current = self._run.config, step + 1
    with self._reporter.waiting_for_input():
      batch = next(examples)
    arguments = programs.StepArguments(
      key=self._seed_key,
      lam=np.float32(order.mixup_lambda(c.seed, step, c.mixup_alpha)),
      learning_rate=self._rates[step],
      flip=np.bool_(c.random_flip),
      random_crop=np.bool_(c.random_crop),
    )
    self._state, part = self._train(self._state, batch, self._positions, arguments)
    self._window.append(part)
    # While this step runs, or batches would pile up on the devices.
    jax.block_until_ready(self._newest)
    self._newest = part
    self._write_due_log()

  def _after_step(self, done: int) -> bool:
    """Logs, saves and evaluates where it is time to; returns whether patience is exhausted."""
    self._checkpoints.check()
    c = self._run.config
    last = done == c.total_steps
    if done % c.log_every == 0 or last:
      self._due, self._window = (done, self._window), []  # written once the next step is sent
    if done % c.checkpoint_every == 0 or last:
      self._save(done)
    if last:
      return False
    self._stop_if_asked(f"after step {done}", done)
    if done % c.eval_every:
      return False
    self._evaluate(done)
    if not self._evaluator.out_of_patience(done):
      return False
    if self._saved != done:
      self._save(done)
    return True

  def _agree_to_stop(self) -> bool:
    """Returns whether to stop here; all processes must ask at the same places."""
    return self._stop.requested if self._vote is None else self._vote.agreed(self._stop)

  def _draw_augmented(self) -> None:
    """Reports the first step at once, and draws images, which need not delay it."""
    self._settle()
    run = self._run
    if run.is_first:
      with self._clock.paused():
        results.draw_augmented(run.folder, run.config, run.data.train, self._reporter.say)

  def _part_done(self, done: int, parts: int) -> None:
    """Shows the progress of a step in micro-batches; it can be stopped in between."""
    if self._vote is None:  # several processes agree after the step
      self._stop_if_asked(f"in step {self._current}", self._current - 1)
    if self._current == self._first + 1:
      self._pace.part_of_first_step_done(done, parts, time.monotonic())
    self._reporter.in_step(self._current, done, parts)

  def _evaluate(self, done: int) -> None:
    """Evaluates after a step unless that is on record."""
    if done in self._reporter.evaluations:
      return
    self._settle()
    if not self._has_evaluated and self._saved != done:
      self._save(done)  # nothing can be while it is compiled
    if self._saved == done:
      self._nothing_unsaved(f"in the evaluation after step {done}")
    self._evaluator.evaluate(self._state.params, done)
    self._has_evaluated = True
    self._stop.unsaved()

  def _evaluated_batch(self) -> None:
    done = self._current
    self._stop_if_asked(f"in the evaluation after step {done}", done)

  def _stop_if_asked(self, where: str, done: int) -> None:
    """Stops where the state is the one after step `done`, which is saved."""
    if self._agree_to_stop():
      if self._saved != done:
        self._save(done)
      raise exits.Interrupted(stopped(self._run.folder, self._run.config, where, done))

  def _nothing_unsaved(self, where: str) -> None:
    """Says that the state is that of the last checkpoint; several processes only stop together."""
    if jax.process_count() > 1:
      return
    saved = self._saved

    def sentence() -> str:
      self._checkpoints.wait()
      return stopped(self._run.folder, self._run.config, where, saved)

    self._stop.nothing_unsaved(sentence)

  def _settle(self) -> None:
    """Waits for the steps that were sent, and writes the log that is due."""
    jax.block_until_ready(self._state)
    self._write_due_log()

  def _write_due_log(self) -> None:
    if self._due is None:
      return
    (done, window), self._due = self._due, None
    self._check_finite(done, window)
    rate = float(self._rates[done - 1])
    self._reporter.train_metrics(done, {**metrics.merge(window), "learning_rate": rate})

  def _save(self, done: int) -> None:
    self._settle()
    with self._clock.paused():
      self._check_finite(done, self._window)
      if not steps.is_finite(self._state.params):  # the loss was, but the update overflowed
        self._raise_not_finite(done)
      progress = {
        "seconds": self._clock.seconds,
        "timed_steps": self._clock.steps,
        "window": windows.packed(self._window),
      }
      self._reporter.sync()
      self._checkpoints.save(self._state, progress)
    self._evaluator.discard(self._checkpoints.on_disk())
    self._saved = done

  def _check_finite(self, done: int, window: list[Any]) -> None:
    """Raises if a loss of the last steps is not finite; such a state must not be saved."""
    wrong = metrics.first_not_finite(window)
    if wrong is not None:
      self._raise_not_finite(done - len(window) + wrong + 1)

  def _raise_not_finite(self, step: int) -> NoReturn:
    c = self._run.config
    kept = self._checkpoints.latest_step()
    where = f" The state after step {kept} is kept in {self._run.folder}." if kept else ""
    raise errors.UserError(
      f"The loss is not finite at step {step} (learning rate {self._rates[step - 1]:g}, "
      f"{self._run.model.dtype.name}): try a smaller base_lr (now {c.base_lr:g}), a longer "
      f"warm-up (now {c.warmup_steps} steps) or dtype=float32.{where}"
    )

  def finish(self, done: int) -> dict[str, Any]:
    """Evaluates the weights after step `done`, or the best; writes and returns the result."""
    run, seconds, timed = self._run, self._clock.seconds, self._clock.steps
    self._settle()
    self._nothing_unsaved("while the result was written")
    params, best_step, found = self._evaluator.finish(self._state.params, done)
    result = finishing.result(
      run,
      found,
      steps=done,
      best_step=best_step,
      during=self._reporter.evaluations,
      seconds=seconds,
      timed_steps=timed,
      startup=self._startup,
    )
    self._checkpoints.wait()  # a run is complete once its last state is saved
    if run.is_first:
      finishing.write(run, params, found, result, self._reporter.say)
      evaluation.discard(run.folder)
    return result


def stopped(folder: pathlib.Path, config: RunConfig, where: str, saved: int) -> str:
  """Returns how a run ends that was asked to stop, with the number of steps that are saved."""
  total = config.total_steps
  kept = f"saved up to step {saved} of {total}" if saved else f"none of {total} steps was done"
  return f"Stopped {where}; {kept}. Run the same command again to resume. Run folder: {folder}"
