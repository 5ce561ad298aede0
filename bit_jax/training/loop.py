"""Fine-tunes a network and evaluates it: one run, from its config to its folder."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np

from bit_jax import run_config, weights
from bit_jax.data import opening, order
from bit_jax.inference import feeds, footprint, metrics
from bit_jax.inference.evaluation import Evaluation
from bit_jax.inference.programs import Examples
from bit_jax.report import run_page
from bit_jax.run_config import RunConfig
from bit_jax.runs import description, mistakes, per_class, reporting, results, run_folder
from bit_jax.runtime import (
  clock,
  devices,
  errors,
  exits,
  files,
  numerics,
  output,
  parallel,
  processes,
  signals,
  stopping,
)
from bit_jax.training import (
  agreement,
  batches,
  evaluation,
  memory,
  optimizer,
  pace,
  planning,
  programs,
  resuming,
  setup,
  steps,
)


def train_and_evaluate(
  request: run_config.Request | RunConfig, workdir: str, weights_at: str | None = None
) -> dict[str, Any]:
  """Prepares a request and runs it in a folder: see `run`."""
  config, data = run_config.prepare(request)
  return run(config, data, workdir, weights_at)


@output.surviving("stdout", "stderr")
def run(
  config: RunConfig, data: opening.Opened, workdir: str, weights_at: str | None = None
) -> dict[str, Any]:
  """Runs a config to its end, from where an earlier call stopped.

  Args:
    config: Resolved.
    data: Its data set.
    workdir: The run folder.
    weights_at: The path of the weights, if `config.weights` only names them: the name is part of
      the run's identity, and stays the same when the file moves.

  Returns:
    The content of `result.json`: 'top1', 'balanced_accuracy' (mean recall of the classes),
    'macro_f1', 'loss' (and 'top5') over 'num_test' images, after 'steps' steps on 'num_train'
    images; the 'seconds' that the steps took, without the first, which is
    compiled, and 'images_per_second' (None if there was no other); 'startup_seconds' from the call
    to the end of its first step (None if it took none); 'left_out', images by reason, and
    'warnings'. With `keep_best`, 'best_step' is the step of the exported weights; chosen on a
    validation part, 'val_top1' is their accuracy on its 'num_val' images. The result of a finished
    run is returned without running again.

  Raises:
    UserError: Something about the config, the data, the weights or the folder can't be used, or the
      loss became NaN or infinite.
    exits.Interrupted: The process was asked to stop; the state is saved.
  """
  began, is_first = time.monotonic(), jax.process_index() == 0
  devices.require()
  if (remark := numerics.ignored()) and is_first:
    print(remark)
  if config.deterministic:
    numerics.require_deterministic(devices.describe().platform)
  if (found := agreement.devices_of_processes()) and is_first:
    print(found, flush=True)
  agreement.require_same_run(config, data)
  agreement.connect()
  layout = order.device_layout(config.batch_size, jax.device_count(), config.mixup_alpha > 0)
  planning.require_microbatch(config, layout.shape[1])  # a mistake is reported before data is read
  folder = run_folder.open_folder(workdir, create=is_first, images=config.data_path)
  lock = run_folder.lock(folder) if is_first else contextlib.nullcontext()
  with numerics.fixed(), lock, files.named(folder):
    # A folder without a run may be anyone's, such as a home folder: nothing is removed there.
    if is_first and run_folder.record_config(folder, config.to_dict(), run_config.identity):
      files.remove_temporaries(folder)
    agreement.require_shared(folder)
    result: dict[str, Any] | None = processes.decided(lambda: _finished(folder, data))
    if result:
      if is_first:
        evaluation.discard(folder)
        again = "delete the folder to run it again"
        print(f"{folder} is already finished; this is its result ({again}).")
      return result
    reading, saved = "while data and weights were read", run_folder.saved_step(folder)
    with signals.reacting(functools.partial(_stopped, folder, config, reading, saved)):
      loaded = setup.load(config, data, folder, layout, weights_at=weights_at, began=began)
    with stopping.StopRequest() as stop:
      preparing = "while the run was prepared"
      stop.nothing_unsaved(functools.partial(_stopped, folder, config, preparing, saved))
      return _train(loaded, stop)


def _finished(folder: pathlib.Path, data: opening.Opened) -> dict[str, Any] | None:
  """Returns the result of a folder whose run is complete, or None.

  Raises:
    UserError: The result lacks something, or the run had other data.
  """
  if result := run_folder.finished(folder):
    run_folder.require_complete(folder, result)
    run_folder.require_data(folder, *data.identity())
  return result


def _train(run: setup.Run, stop: stopping.StopRequest) -> dict[str, Any]:
  """Trains from the newest checkpoint on, evaluates, and writes the result."""
  c = run.config
  params, digest = setup.initial_params(run)
  agreement.require_same(
    {
      "the hash of the weights": digest,
      "the data": run.data.version,
      "images used for training": len(run.data.train),
      "images that are evaluated": len(run.data.test),
    }
  )
  if run.is_first:
    print(reporting.parameter_overview(params, run.folder / "parameters.txt"))
    description.record(run.folder, c, run.data, digest, run.model.dtype.name, run.hardware)
  run = setup.in_recorded_order(run)
  state = steps.create_state(params, optimizer.sgd(c.momentum, c.momentum_dtype))
  del params  # so that no second copy stays in memory
  with setup.checkpoints(run, digest) as checkpoints:
    first, step_clock, window = 0, clock.StepClock(), []
    if found := checkpoints.restore(state, print):
      state, progress = found
      first = int(state.step)
      step_clock = clock.StepClock(progress["seconds"], int(progress["timed_steps"]))
      window = _unpacked(progress.get("window", ()), run.model.num_classes)
      if run.is_first:
        print(f"Resuming after step {first}.")
    reporter = reporting.Reporter(
      folder=run.folder,
      first_step=first,
      total_steps=c.total_steps,
      batch_size=c.batch_size,
      step_clock=step_clock,
      profile=c.profile,
      quiet=not run.is_first,
      chooses_on=run.chooses_on,
    )
    with reporter:
      with run.out_of_memory("a smaller --config.resident_share, or a smaller model"):
        state = parallel.replicate(state)  # the host's copy is freed before memory is planned
        loop = _Loop(run, state, first, stop, step_clock, reporter, checkpoints, window)
        del state
      with run.out_of_memory(planning.advice(loop.plan, c, run.model.platform)):
        done = loop.run()
      return loop.finish(done)


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


class _Loop:
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
      raise exits.Interrupted(_stopped(self._run.folder, self._run.config, where, done))

  def _nothing_unsaved(self, where: str) -> None:
    """Says that the state is that of the last checkpoint; several processes only stop together."""
    if jax.process_count() > 1:
      return
    saved = self._saved

    def stopped() -> str:
      self._checkpoints.wait()
      return _stopped(self._run.folder, self._run.config, where, saved)

    self._stop.nothing_unsaved(stopped)

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
        "window": _packed(self._window),
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
    """Evaluates, exports the weights, writes the result and draws the pictures."""
    run, seconds, timed = self._run, self._clock.seconds, self._clock.steps
    self._settle()
    self._nothing_unsaved("while the result was written")
    params, best_step, found = self._evaluator.finish(self._state.params, done)
    result = {
      **found.means,
      **per_class.means(found.labels, found.predictions),
      "num_train": len(run.data.train),
      "num_test": len(run.data.test),
      "steps": done,
      "seconds": seconds,
      "images_per_second": timed * run.config.batch_size / seconds if timed else None,
      "startup_seconds": self._startup,
      "left_out": run.data.left_out,
      "warnings": run.data.warnings,
    }
    if best_step is not None:
      result["best_step"] = best_step
    if run.data.validation is not None:
      result["num_val"] = len(run.data.validation)
      exported = done if best_step is None else best_step
      result["val_top1"] = self._reporter.evaluations[exported]
    self._checkpoints.wait()  # a run is complete once its last state is saved
    if run.is_first:
      outcome, say = (found.predictions, found.labels), self._reporter.say
      with run_folder.finishing(run.folder):
        with run.out_of_memory_at_end():
          weights.save(run.folder / run_folder.WEIGHTS, jax.device_get(params))
          results.write(run.folder, run.data, result, *outcome, say)
        results.draw(run.folder, run.config, run.data.test, found.means["top1"], *outcome, say)
        _report(run, found, say)
      evaluation.discard(run.folder)
    return result


def _stopped(folder: pathlib.Path, config: RunConfig, where: str, saved: int) -> str:
  """Returns how a run ends that was asked to stop, with the number of steps that are saved."""
  total = config.total_steps
  kept = f"saved up to step {saved} of {total}" if saved else f"none of {total} steps was done"
  return f"Stopped {where}; {kept}. Run the same command again to resume. Run folder: {folder}"


def _packed(window: list[Any]) -> list[list[float]]:
  """Returns the metrics of steps as numbers, to be saved."""
  return [[float(x) for x in jax.tree.leaves(part)] for part in jax.device_get(window)]


def _unpacked(packed: Sequence[Sequence[float]], num_classes: int) -> list[Any]:
  """Returns the metrics of steps that `_packed` was given."""
  leaves, structure = jax.tree.flatten(metrics.collection(num_classes).empty())
  types = [leaf.dtype for leaf in leaves]

  def unpacked(part: Sequence[float]) -> Any:
    arrays = [np.asarray(x, dtype) for x, dtype in zip(part, types, strict=True)]
    return jax.tree.unflatten(structure, arrays)

  return [unpacked(part) for part in packed]


def _report(run: setup.Run, found: Evaluation, say: Callable[[str], None]) -> None:
  """Writes the most confident mistakes and the report; warns of what can't be written."""
  test, name = run.data.test, f"{run.config.name}: {run.config.model}"
  predicted = found.labels, found.predictions, found.confidence
  mistakes.write(run.folder, test.class_names, *predicted, run.data.paths("test"), say)
  title = f"{name}, top-1 {found.means['top1']:.2%}"
  mistakes.draw(run.folder, test, *predicted, title, say)
  with files.optional(run_folder.REPORT, say):
    run_page.write(run.folder)
