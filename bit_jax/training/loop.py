"""Fine-tunes a network and evaluates it: one run, from its config to its folder."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import hyperrule, run_config, weights
from bit_jax.data import opening, order, pipeline
from bit_jax.models import architectures, resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runs import description, per_class, reporting, results, run_folder
from bit_jax.runtime import clock, devices, errors, exits, numerics, output, parallel
from bit_jax.training import (
  early_stopping,
  feeds,
  metrics,
  optimizer,
  out_of_memory,
  pace,
  planning,
  programs,
  resuming,
  steps,
)


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same throughout a run.

  Attributes:
    config: Resolved.
    folder: The run folder.
    start: The file of the weights that it starts from; None: it is initialised at random.
    layout: [local devices, batch per device] positions in the global batch.
    image_sizes: (height, width) of training and of test images as the devices get them.
    data: What is trained on, and what is scored.
    model: The network.
    is_first: Whether this process is the one that writes.
    began: When the run was asked for, in seconds of `time.monotonic`.
  """

  config: RunConfig
  folder: pathlib.Path
  start: pathlib.Path | None
  layout: np.ndarray
  image_sizes: tuple[tuple[int, int], tuple[int, int]]
  data: pipeline.Loaded
  model: resnet_v2.ResNetV2
  is_first: bool
  began: float

  @property
  def chooses_on(self) -> str:
    """The kind of evaluation that weights are chosen by: `reporting.VAL` or `reporting.TEST`."""
    return reporting.TEST if self.data.validation is None else reporting.VAL


def train_and_evaluate(
  request: run_config.Request | RunConfig, workdir: str, weights_at: str | None = None
) -> dict[str, Any]:
  """Prepares a request and runs it in a folder: see `run`."""
  config, data = description.prepare(request)
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
    interruption.Interrupted: The process was asked to stop; the state is saved.
  """
  began = time.monotonic()
  devices.require()
  if (remark := numerics.ignored()) and jax.process_index() == 0:
    print(remark)
  with numerics.fixed():
    return _in_folder(config, data, workdir, weights_at, began)


def _in_folder(
  config: RunConfig, data: opening.Opened, workdir: str, weights_at: str | None, began: float
) -> dict[str, Any]:
  """Runs a config in its folder, or returns the result that is there."""
  hardware = devices.describe()
  if config.deterministic:
    numerics.require_deterministic(hardware.platform)
  layout = order.device_layout(config.batch_size, jax.device_count(), config.mixup_alpha > 0)
  planning.require_microbatch(config, layout.shape[1])  # a mistake is reported before data is read
  is_first = jax.process_index() == 0
  folder = run_folder.open_folder(workdir, create=is_first)
  with run_folder.lock(folder) if is_first else contextlib.nullcontext():
    if is_first:
      run_folder.record_config(folder, config.to_dict(), run_config.identity)
    if result := run_folder.finished(folder):
      run_folder.require_complete(folder, result)
      run_folder.require_data(folder, *data.identity())
      if is_first:
        print(f"{folder} is finished; this is its result (delete the folder to run it again).")
      return result
    return _train(_begin(config, data, folder, hardware, layout, weights_at, began))


def _begin(
  config: RunConfig,
  data: opening.Opened,
  folder: pathlib.Path,
  hardware: devices.Description,
  layout: np.ndarray,
  weights_at: str | None,
  began: float,
) -> _Run:
  """Finds the weights and loads the data of a run."""
  start, spec = None, data.spec
  if config.weights != "none":  # before the data, which may take longer to read
    start = weights.resolve(weights_at or config.weights)
  room = config.resident_share * devices.resident_memory(hardware)
  loaded = pipeline.load(data, run_config.selection(config), room)
  loaded.warnings.extend(description.regime_warnings(config, spec, len(loaded.train)))
  loaded.warnings.extend(description.choice_warnings(config, spec))
  if jax.process_count() > 1:  # they must find each other within seconds of their first try
    loaded = _agree_on_streams(loaded)
  dtype = devices.compute_dtype(config.dtype, hardware.platform)
  return _Run(
    config=config,
    folder=folder,
    start=start,
    layout=parallel.local_rows(layout),
    image_sizes=(spec.device_size(config.train_size), spec.device_size(config.test_size)),
    data=loaded,
    model=resnet_v2.create(config.model, spec.num_classes, dtype, hardware.platform),
    is_first=jax.process_index() == 0,
    began=began,
  )


def _agree_on_streams(data: pipeline.Loaded) -> pipeline.Loaded:
  """Returns the data with each part streamed that any process has no room for.

  All processes take the same steps, but not all need have the same memory.
  """
  parts = [data.train, data.test, *([] if data.validation is None else [data.validation])]
  ours = np.array([p.examples is None for p in parts])
  short = multihost_utils.process_allgather(ours).any(axis=0)
  train, test, *validation = (
    dataclasses.replace(part, examples=None) if any_short else part
    for part, any_short in zip(parts, short, strict=True)
  )
  return dataclasses.replace(
    data, train=train, test=test, validation=validation[0] if validation else None
  )


_OLD_ORDER = (
  "This run was begun by a version that permutes training examples in windows, which doesn't mix a "
  "set that is sorted by class; it goes on in that order. A new run folder gets a full permutation."
)


def _in_order_of_begin(run: _Run) -> pipeline.Loaded:
  """Returns the data, to be trained on in the order that the run was begun with.

  Its environment must be recorded; the process that records it sends it to the others.
  """
  version = run_folder.order_version(run.folder) if run.is_first else order.VERSION
  if jax.process_count() > 1:
    version = int(multihost_utils.broadcast_one_to_all(np.int32(version)))
  if version >= order.VERSION:
    return run.data
  train = dataclasses.replace(run.data.train, window=run.config.shuffle_window)
  data = dataclasses.replace(run.data, train=train)
  if run.data.train.window is None and len(train) > run.config.shuffle_window:
    data.warnings.append(_OLD_ORDER)
    if run.is_first:
      print(f"warning: {_OLD_ORDER}")
  return data


def _initial_params(
  config: RunConfig, start: pathlib.Path | None, num_classes: int
) -> tuple[Any, str | None]:
  """Returns the parameters before training, and the checkpoint's sha256."""
  architecture = architectures.find(config.model)
  if start is not None:
    loaded = weights.load(start, architecture, head=config.head, num_classes=num_classes)
    return loaded.params, loaded.sha256
  if config.head == "keep":
    raise errors.UserError("head=keep needs a checkpoint: there is none to keep with weights=none.")
  model = resnet_v2.ResNetV2(architecture, num_classes)
  image = jnp.zeros((1, 32, 32, 3))
  variables = jax.jit(model.init)(jax.random.key(config.seed), image)
  return jax.device_get(variables["params"]), None


def _train(run: _Run) -> dict[str, Any]:
  """Trains from the newest checkpoint on, evaluates, and writes the result."""
  c = run.config
  params, digest = _initial_params(c, run.start, run.model.num_classes)
  if run.is_first:
    print(reporting.parameter_overview(params, run.folder / "parameters.txt"))
    description.record(run.folder, c, run.data, digest, run.model.dtype.name)
  run = dataclasses.replace(run, data=_in_order_of_begin(run))
  state = steps.create_state(params, optimizer.sgd(c.momentum, c.momentum_dtype))
  del params  # so that no second copy stays in memory
  with (
    exits.StopRequest() as stop,
    resuming.Checkpoints(run.folder / run_folder.CHECKPOINTS) as checkpoints,
  ):
    first, step_clock = checkpoints.latest_step(), clock.StepClock()
    if first:
      state, progress = checkpoints.restore(state)
      step_clock = clock.StepClock(progress["seconds"], int(progress["timed_steps"]))
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
      with _out_of_memory(run, out_of_memory.SMALLER_SET):
        state = parallel.replicate(state)  # the host's is gone before memory is planned
        loop = _Loop(run, state, step_clock, reporter, checkpoints)
        del state
      with _out_of_memory(run, out_of_memory.advice(loop.plan, c, run.model.platform)):
        done = loop.run(first, stop)
      return loop.finish(done)


def _out_of_memory(run: _Run, advice: str) -> contextlib.AbstractContextManager[None]:
  """Explains that training or an evaluation ran out of memory, with what to try."""
  return out_of_memory.explained(
    out_of_memory.while_computing(run.config, run.layout.shape[1], advice)
  )


def _plan(run: _Run, tell: Callable[[str], None]) -> tuple[planning.Plan, int]:
  """Returns how a step is computed, and the images of an evaluation's batch over all devices.

  The state and the sets of the run must be on the devices.
  """
  c, (train_size, test_size) = run.config, run.image_sizes
  task = planning.task(c, run.model, train_size)
  hardware = devices.describe()
  budget = planning.budget(task, hardware)
  plan = planning.plan(
    task,
    run.layout.shape[1],
    hardware,
    mixup=c.mixup_alpha > 0,
    microbatch=c.microbatch,
    may_remat=c.remat == hyperrule.AUTO,
    budget=budget,
    tell=tell,
  )
  tests = dataclasses.replace(task, resize=c.test_size, crop=c.test_size, source=test_size)
  most = max(len(run.data.test), len(run.data.during))  # both share the program
  eval_batch = planning.evaluation_batch(tests, c.eval_batch_size, most, budget, hardware)
  return planning.agreed(plan, eval_batch)


def _step_function(
  run: _Run, plan: planning.Plan, part_done: Callable[[int, int], None]
) -> programs.Step:
  c = run.config
  task = planning.task(c, run.model.clone(remat=plan.remat), run.image_sizes[0])
  if plan.at_once:
    return programs.train_function(task)
  functions = programs.micro_batch_functions(task)
  return programs.train_in_micro_batches(functions, plan.microbatch, run.model.platform, part_done)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
  """What an evaluation found.

  Attributes:
    means: 'loss', 'top1' and so on.
    predictions: [N] int32.
    labels: [N] int32.
  """

  means: dict[str, float]
  predictions: np.ndarray
  labels: np.ndarray


class _Loop:
  """The part of a run that changes: the state, and the metrics not yet written."""

  def __init__(
    self,
    run: _Run,
    state: steps.TrainState,
    step_clock: clock.StepClock,
    reporter: reporting.Reporter,
    checkpoints: resuming.Checkpoints,
  ):
    c = run.config
    self._run, self._state, self._reporter = run, state, reporter
    self._clock, self._checkpoints = step_clock, checkpoints
    self._seed_key = jax.random.key(c.seed)
    self._examples, self._tests = feeds.Feed(run.data.train), feeds.Feed(run.data.test)
    validation = run.data.validation
    self._during = self._tests if validation is None else feeds.Feed(validation)
    self._positions = parallel.send(run.layout.astype(np.int32))
    jax.block_until_ready(state)  # it counts as memory in use
    self.plan, self._eval_batch = _plan(run, reporter.say)
    self._reporter.say(self.plan.reason)
    if c.remat is True and run.model.platform == "cpu":
      self._reporter.say("warning: remat saves nothing on CPU, where XLA computes nothing twice.")
    self._train = _step_function(run, self.plan, self._part_done)
    self._rates = optimizer.learning_rates(c.base_lr, c.warmup_steps, c.decay_steps, c.total_steps)
    self._window: list[Any] = []  # metrics of the steps since the last log
    self._newest: Any = None  # metrics of the step before the one that is being sent
    self._due: tuple[int, list[Any]] | None = None  # a log to be written: steps done, and window
    self._saved = 0  # steps done in the last checkpoint
    self._startup: float | None = None  # seconds until the first step was done
    self._pace_reported = False
    self._under_way = 0  # the step that is computed, counted from 1
    self._first_step = pace.FirstStep()
    self._first = 0  # steps done when this part of the run began
    self._stop: exits.StopRequest | None = None

  def run(self, first: int, stop: exits.StopRequest) -> int:
    """Takes the steps from `first` on, with logs, evaluations and checkpoints on their way.

    Returns:
      The number of steps done in the end, fewer than planned if patience was exhausted.
    """
    c, self._saved = self._run.config, first
    self._first, self._stop = first, stop
    self._recover_evaluations(first)
    if first and first % c.eval_every == 0 and first < c.total_steps:
      self._evaluate_unless_on_record(first)  # what stopped the run came between save and this
    if self._out_of_patience(first):
      return first
    self._reporter.say("Compiling: the first step takes a while.")
    given = self._examples.training(c, self._run.layout, first)
    with contextlib.closing(given):
      for step in range(first, c.total_steps):
        self._step(step, given)
        done = step + 1
        if step == first:
          jax.block_until_ready(self._state)  # it was compiled, which is not to be timed
          self._startup = time.monotonic() - self._run.began
        self._clock.step_done()
        if self._after_step(done, self._agree_to_stop(done, stop)):
          return done
        if step == first:
          self._after_first_step()
        elif step <= first + 2 and not self._pace_reported:
          self._report_measured_pace(done, enough=step == first + 2)
        self._reporter.step(done)
    return c.total_steps

  def _after_first_step(self) -> None:
    """Tells of it at once, and does what it needn't have waited for."""
    self._settle()
    if self._run.is_first:
      with self._clock.paused():
        results.draw_augmented(
          self._run.folder, self._run.config, self._run.data.train, self._reporter.say
        )

  def _report_measured_pace(self, done: int, *, enough: bool) -> None:
    """Reports how long the run will take: after `enough` timed steps, or one that took long."""
    jax.block_until_ready(self._state)
    seconds = self._clock.seconds_a_step
    if seconds is None or not (enough or seconds >= pace.SLOW):
      return
    self._report_pace(seconds, done)

  def _report_pace(self, seconds_a_step: float, done: int) -> None:
    self._pace_reported = True
    if done < self._run.config.total_steps:
      for line in pace.report(seconds_a_step, done, self._run.config):
        self._reporter.say(line)

  def _part_done(self, done: int, parts: int) -> None:
    """Shows the progress of a step in micro-batches; a slow first step reports the pace."""
    if self._under_way == self._first + 1:
      self._part_of_first_step_done(done, parts)
    self._reporter.in_step(self._under_way, done, parts)

  def _part_of_first_step_done(self, done: int, parts: int) -> None:
    # Several processes must stop at the same place, so they stop after the step.
    if self._stop is not None and self._stop.requested and jax.process_count() == 1:
      raise exits.Interrupted(
        f"Stopped in step {self._under_way} of {self._run.config.total_steps}, the first since the "
        f"start: the same command begins there again. Run folder: {self._run.folder}"
      )
    seconds = self._first_step.part_done(done, parts, time.monotonic())
    if seconds is not None and not self._pace_reported:
      self._report_pace(seconds, self._first)

  def _after_step(self, done: int, stopping: bool) -> bool:
    """Logs, saves and evaluates where it is time to; returns whether patience is exhausted."""
    c = self._run.config
    last = done == c.total_steps
    if done % c.log_every == 0 or last or stopping:
      self._log(done)
    if done % c.checkpoint_every == 0 or last or stopping:
      self._save(done)
    if stopping and not last:
      raise exits.Interrupted(
        f"Stopped after step {done} of {c.total_steps}; the same command goes on from there. "
        f"Run folder: {self._run.folder}"
      )
    if last or done % c.eval_every:
      return False
    self._evaluate_unless_on_record(done)
    return self._out_of_patience(done)

  def _out_of_patience(self, done: int) -> bool:
    patience = self._run.config.patience
    exhausted = early_stopping.exhausted(self._reporter.evaluations, patience)
    if exhausted:
      self._reporter.say(
        f"Top-1 has not risen above that of step {early_stopping.best(self._reporter.evaluations)} "
        f"in {patience} evaluations: training ends after step {done}."
      )
    return exhausted

  def _agree_to_stop(self, done: int, stop: exits.StopRequest) -> bool:
    """Returns whether to stop after this step: several processes must all do so at the same one."""
    if jax.process_count() == 1:
      return stop.requested
    if done % self._run.config.log_every:
      return False
    return bool(np.any(multihost_utils.process_allgather(np.bool_(stop.requested))))

  def _step(self, step: int, given: Iterator[programs.Examples]) -> None:
    c, self._under_way = self._run.config, step + 1
    with self._reporter.waiting_for_input():
      examples = next(given)
    arguments = programs.StepArguments(
      key=self._seed_key,
      lam=np.float32(order.mixup_lambda(c.seed, step, c.mixup_alpha)),
      learning_rate=self._rates[step],
      flip=np.bool_(c.random_flip),
      random_crop=np.bool_(c.random_crop),
    )
    self._state, part = self._train(self._state, examples, self._positions, arguments)
    self._window.append(part)
    # While this step runs: or batches would pile up on the devices.
    jax.block_until_ready(self._newest)
    self._newest = part
    self._write_due_log()

  def _log(self, done: int) -> None:
    """Has the window written once the devices are through with it and have the next step."""
    self._due, self._window = (done, self._window), []

  def _write_due_log(self) -> None:
    if self._due is None:
      return
    (done, window), self._due = self._due, None
    self._check_finite(done, window)
    rate = float(self._rates[done - 1])
    self._reporter.train_metrics(done, {**metrics.merge(window), "learning_rate": rate})

  def _settle(self) -> None:
    """Waits for the steps that were sent, and writes the log that is due."""
    jax.block_until_ready(self._state)
    self._write_due_log()

  def _save(self, done: int) -> None:
    self._settle()
    with self._clock.paused():
      self._check_finite(done, self._window)
      if not steps.is_finite(self._state.params):  # the loss was, but the update overflowed
        self._raise_not_finite(done)
      progress = {"seconds": self._clock.seconds, "timed_steps": self._clock.steps}
      self._reporter.sync()
      self._checkpoints.save(self._state, progress)
    if self._run.config.keep_best and self._run.is_first:
      # Whoever resumes from this checkpoint, or from the one before if this one can't be completed,
      # finds the best until then.
      now = self._reporter.evaluations
      before = {step: top1 for step, top1 in now.items() if step <= self._saved}
      early_stopping.discard(self._run.folder, [early_stopping.best(e) for e in (before, now) if e])
    self._saved = done

  def _check_finite(self, done: int, window: list[Any]) -> None:
    """Raises if a loss of the last steps is not finite; such a state must not be saved."""
    wrong = metrics.first_not_finite(window)
    if wrong is not None:
      self._raise_not_finite(done - len(window) + wrong + 1)

  def _raise_not_finite(self, step: int) -> None:
    c = self._run.config
    kept = self._checkpoints.latest_step()
    where = f" The state after step {kept} is kept in {self._run.folder}." if kept else ""
    raise errors.UserError(
      f"The loss is not finite at step {step} (learning rate {self._rates[step - 1]:g}, "
      f"{self._run.model.dtype.name}): try a smaller base_lr (now {c.base_lr:g}), a longer "
      f"warm-up (now {c.warmup_steps} steps) or dtype=float32.{where}"
    )

  def _recover_evaluations(self, first: int) -> None:
    """Repeats evaluations before a resumed step that are not on record, and reports lost ones.

    Only the weights of the best one are kept.
    """
    c, on_record = self._run.config, self._reporter.evaluations
    due = range(c.eval_every, first, c.eval_every)
    if not (lost := [step for step in due if step not in on_record]):
      return
    kept = self._state
    for step in lost:
      path = early_stopping.weights_path(self._run.folder, step)
      if c.keep_best and path.exists():
        self._state = kept.replace(params=self._load_weights(path))
        self._record(step, self._score(step))
    self._state = kept
    if missing := [str(step) for step in lost if step not in on_record]:
      self._reporter.say(
        f"warning: {reporting.METRICS} lacks the evaluations after steps {', '.join(missing)}: "
        f"they don't count for patience, and are missing in the curves."
      )

  def _evaluate_unless_on_record(self, done: int) -> None:
    if done not in self._reporter.evaluations:
      self._evaluate(done)

  def _evaluate(self, done: int) -> _Evaluation:
    """Evaluates what weights are chosen on, and keeps the weights if none were better."""
    evaluation = self._score(done)
    means, evaluations = evaluation.means, self._reporter.evaluations
    better = means["top1"] > max(evaluations.values(), default=-1)
    if self._run.config.keep_best and self._run.is_first and better:
      path = early_stopping.weights_path(self._run.folder, done)
      with self._clock.paused():
        weights.save(path, jax.device_get(self._state.params))
    # After the weights: whoever finds the record finds them too.
    self._record(done, evaluation)
    return evaluation

  def _record(self, done: int, evaluation: _Evaluation) -> None:
    images = len(evaluation.labels)
    self._reporter.eval_metrics(done, evaluation.means, images, self._run.chooses_on)

  def _score(self, done: int, feed: feeds.Feed | None = None) -> _Evaluation:
    """Evaluates every image once, by default those that weights are chosen on."""
    feed = feed or self._during
    run, c = self._run, self._run.config
    self._settle()
    fewer, devices = self._eval_batch // 2, jax.device_count()
    less = f"--config.eval_batch_size={fewer} (now {self._eval_batch})"
    advice = less if fewer >= devices else f"a smaller --config.test_size (now {c.test_size})"
    with self._clock.paused(), _out_of_memory(run, advice):
      evaluation = _Evaluation(
        *feed.evaluate(
          run.model,
          c.test_size,
          self._state.params,
          self._eval_batch,
          self._reporter.evaluating(len(feed.part)),
        )
      )
    if not np.isfinite(evaluation.means["loss"]):
      self._raise_not_finite(done)
    return evaluation

  def finish(self, done: int) -> dict[str, Any]:
    """Evaluates, exports the weights, writes the result and draws the pictures."""
    run, c = self._run, self._run.config
    taken = self._taken(done)
    best_step, evaluation = self._final_evaluation(done)
    result = self._result(evaluation, taken, best_step)
    if run.is_first:
      found = evaluation.predictions, evaluation.labels
      with out_of_memory.explained(out_of_memory.after_training(run.folder)):
        weights.save(run.folder / "model.npz", jax.device_get(self._state.params))
        results.write(run.folder, run.data, result, *found, self._reporter.say)
      early_stopping.discard(run.folder)
      top1 = evaluation.means["top1"]
      results.draw(run.folder, c, run.data.test, top1, *found, self._reporter.say)
    return result

  def _taken(self, done: int) -> dict[str, Any]:
    """Returns a result's steps and their time; to be called before anything else takes time."""
    seconds, timed = self._clock.seconds, self._clock.steps
    return {
      "steps": done,
      "seconds": seconds,
      "images_per_second": timed * self._run.config.batch_size / seconds if timed else None,
      "startup_seconds": self._startup,
    }

  def _final_evaluation(self, done: int) -> tuple[int | None, _Evaluation]:
    """Puts the weights to export in place, and evaluates them on the test images.

    Returns:
      The step of the best weights, None if the last ones are exported; and the evaluation.
    """
    known = done in self._reporter.evaluations  # where patience ended the run
    last = None if known else self._evaluate(done)
    with out_of_memory.explained(out_of_memory.after_training(self._run.folder)):
      best_step = self._go_back_to_best() if self._run.config.keep_best else None
    exported = done if best_step is None else best_step
    if self._run.chooses_on == reporting.VAL:
      evaluation = self._score(exported, self._tests)
      self._reporter.eval_metrics(exported, evaluation.means, len(evaluation.labels))
      return best_step, evaluation
    if last is not None and exported == done:
      return best_step, last
    return best_step, self._score(exported)

  def _result(
    self, evaluation: _Evaluation, taken: dict[str, Any], best_step: int | None
  ) -> dict[str, Any]:
    """Returns what `result.json` is to hold."""
    data = self._run.data
    result = {
      **evaluation.means,
      **per_class.means(evaluation.labels, evaluation.predictions),
      "num_train": len(data.train),
      "num_test": len(data.test),
      **taken,
      "left_out": data.left_out,
      "warnings": data.warnings,
    }
    if best_step is not None:
      result["best_step"] = best_step
    if data.validation is not None:
      result["num_val"] = len(data.validation)
      exported = taken["steps"] if best_step is None else best_step
      result["val_top1"] = self._reporter.evaluations[exported]
    return result

  def _go_back_to_best(self) -> int | None:
    """Puts the weights of the best evaluation in place of the last ones; returns their step.

    Without any weights that were kept, the last ones stay, and it returns None.
    """
    run, evaluations = self._run, self._reporter.evaluations
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("best weights written")
    paths = {step: early_stopping.weights_path(run.folder, step) for step in evaluations}
    kept = {step: top1 for step, top1 in evaluations.items() if paths[step].exists()}
    best, step = early_stopping.best(evaluations), early_stopping.best(kept) if kept else None
    if step != best:
      chosen = "the last weights" if step is None else f"those after step {step}"
      warning = f"The weights after step {best}, the best, are not there: {chosen} are used."
      self._reporter.say(f"warning: {warning}")
      run.data.warnings.append(warning)
    params = None if step is None else self._load_weights(paths[step])
    if jax.process_count() > 1:  # the first process will delete them
      multihost_utils.sync_global_devices("best weights read")
    if params is not None:
      self._state = self._state.replace(params=params)
    return step

  def _load_weights(self, path: pathlib.Path) -> Any:
    """Returns parameters that were kept, on the devices."""
    architecture = architectures.find(self._run.config.model)
    classes = self._run.model.num_classes
    loaded = weights.load(path, architecture, head="keep", num_classes=classes)
    return parallel.replicate(loaded.params)
