"""Fine-tunes a network and evaluates it: one run, from its config to its folder."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import (
  architectures,
  checkpoint,
  clock,
  errors,
  experiment,
  interruption,
  metrics,
  models,
  optimizer,
  parallel,
  pictures,
  reporting,
  runs,
  steps,
  weights,
)
from bit_jax.data import arrays, device, fewshot, loading, order

_SHOWN = 16  # images in a picture


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same throughout a run.

  Attributes:
    config: Resolved.
    folder: The run folder.
    layout: [local devices, batch per device] positions in the global batch.
    train: Training examples; decoded, on the host.
    test: Examples to evaluate.
    model: The network.
    seed_key: Of crops and flips.
    is_first: Whether this process is the one that writes.
  """

  config: Any
  folder: pathlib.Path
  layout: np.ndarray
  train: arrays.Examples
  test: arrays.Examples
  model: models.ResNetV2
  seed_key: jax.Array
  is_first: bool


def train_and_evaluate(config: Any, workdir: str) -> dict[str, Any]:
  """Runs a config to its end, from where an earlier call left it.

  Args:
    config: A `ml_collections.ConfigDict` with the fields of `configs/base.py`; what is left open
      is resolved.
    workdir: The run folder.

  Returns:
    What `result.json` holds: 'top1', 'loss' (and 'top5') over 'num_test' images, 'steps'; the
    'seconds' that the steps took, without the first, which is compiled, and 'images_per_second'
    (None if there was no other). A finished run's result is returned without running again.

  Raises:
    UserError: Something about the config, the data, the weights or the folder can't be used, or the
      loss became NaN or infinite.
    interruption.Interrupted: The process was asked to stop; the state is saved.
  """
  config, spec = experiment.resolve(config)
  _require_determinism(config)
  layout = order.device_layout(config.batch_size, jax.device_count(), config.mixup_alpha > 0)
  is_first = jax.process_index() == 0
  folder = runs.open_folder(workdir, config.to_dict(), experiment.identity(config), create=is_first)
  with runs.lock(folder) if is_first else contextlib.nullcontext():
    if result := runs.finished(folder):
      if is_first:
        print(f"{folder} is finished; this is its result (delete the folder to run it again).")
      return result
    if config.weights != "none":
      weights.resolve(config.weights)  # before the data, which may take longer to read
    train, test, version = loading.load(spec, config.data_dir)
    if jax.process_count() > 1:  # they must find each other within seconds of their first try
      multihost_utils.sync_global_devices("data loaded")
    run = _Run(
      config=config,
      folder=folder,
      layout=parallel.local_rows(layout),
      train=_subset(train, config, folder),
      test=test,
      model=models.create(config.model, spec.num_classes, parallel.compute_dtype(config.dtype)),
      seed_key=jax.random.key(config.seed),
      is_first=is_first,
    )
    return _train(run, version)


def _require_determinism(config: Any) -> None:
  flag = "--xla_gpu_deterministic_ops=true"
  if config.deterministic and flag not in os.environ.get("XLA_FLAGS", ""):
    raise errors.UserError(
      f"deterministic needs XLA_FLAGS={flag} in the environment before the first computation; "
      f"python -m bit_jax.train sets it by itself."
    )


def _initial_params(config: Any, num_classes: int) -> tuple[Any, str | None]:
  """Returns the parameters before training, and the checkpoint's sha256."""
  architecture = architectures.find(config.model)
  if config.weights != "none":
    path = weights.resolve(config.weights)
    loaded = weights.load(path, architecture, head=config.head, num_classes=num_classes)
    return loaded.params, loaded.sha256
  if config.head == "keep":
    raise errors.UserError("head=keep needs a checkpoint: there is none to keep with weights=none.")
  model = models.ResNetV2(architecture, num_classes)
  image = jnp.zeros((1, 32, 32, 3))
  variables = jax.jit(model.init)(jax.random.key(config.seed), image)
  return jax.device_get(variables["params"]), None


def _subset(train: arrays.Examples, config: Any, folder: pathlib.Path) -> arrays.Examples:
  """Returns the few-shot subset, and records which examples it holds; all of them without shots."""
  if config.shots is None:
    return train
  indices = fewshot.select(train.labels, config.shots, config.seed, train.class_names)
  if jax.process_index() == 0:
    record = {"shots": config.shots, "seed": config.seed, "indices": indices}
    runs.write_json(folder / "fewshot.json", record)
  return train.take(indices)


def _describe_run(run: _Run, params: Any, version: str, digest: str | None) -> None:
  """Writes and prints what the run is before it begins."""
  names = run.train.class_names
  runs.write_lines(run.folder / "classes.txt", names)
  print(reporting.parameter_overview(params, run.folder / "parameters.txt"))
  environment = runs.describe_environment(
    data=version, weights=run.config.weights, weights_sha256=digest, dtype=run.model.dtype.name
  )
  runs.record_environment(run.folder, environment)
  print(
    f"Training on {len(run.train):,} images of {len(names)} classes ({version}), evaluating "
    f"{len(run.test):,}; {environment['num_devices']} x {environment['device']}, "
    f"{environment['dtype']}; run folder {run.folder}",
    flush=True,
  )
  shown = order.batch(run.config.seed, 0, run.config.batch_size, len(run.train))[:_SHOWN]
  captions = [names[c] for c in run.train.labels[shown]]
  picture = run.folder / "augmented.png"
  pictures.sheet(_augmented(run, shown), captions, picture, "Training images, cropped and flipped")


def _augmented(run: _Run, indices: np.ndarray) -> np.ndarray:
  """Returns the first images of the first step as it sees them (before MixUp)."""
  keys = device.example_keys(run.seed_key, jnp.int32(0), jnp.arange(len(indices)))
  augment = jax.jit(
    functools.partial(device.augment, resize=run.config.resize, crop=run.config.crop)
  )
  return np.asarray(
    augment(
      run.train.images[indices],
      keys,
      flip=run.config.random_flip,
      random_crop=run.config.random_crop,
    )
  )


def _train(run: _Run, version: str) -> dict[str, Any]:
  """Trains from the newest checkpoint on, evaluates, and writes the result."""
  c = run.config
  params, digest = _initial_params(c, len(run.train.class_names))
  if run.is_first:
    _describe_run(run, params, version, digest)
  state = steps.create_state(params, optimizer.sgd(c.momentum))
  del params  # so that no second copy stays in memory
  with (
    interruption.StopRequest() as stop,
    checkpoint.Checkpoints(run.folder / "checkpoints") as checkpoints,
  ):
    first, step_clock = checkpoints.latest_step(), clock.StepClock()
    if first:
      state, progress = checkpoints.restore(state)
      step_clock = clock.StepClock(progress["seconds"], int(progress["timed_steps"]))
      if run.is_first:
        print(f"Resuming after step {first}.")
    reporter = reporting.Reporter(
      run.folder,
      first_step=first,
      total_steps=c.total_steps,
      batch_size=c.batch_size,
      log_every=c.log_every,
      step_clock=step_clock,
      profile=c.profile,
      quiet=not run.is_first,
    )
    with reporter, _explained_out_of_memory(c):
      loop = _Loop(run, parallel.replicate(state), step_clock, reporter, checkpoints)
      del state
      loop.run(first, stop)
      return loop.finish()


@contextlib.contextmanager
def _explained_out_of_memory(config: Any) -> Iterator[None]:
  try:
    yield
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    raise errors.UserError(
      f"A device ran out of memory with {config.model}, crop {config.crop} and batch "
      f"{config.batch_size}: try preset=scaled with --config.batch_size="
      f"{max(1, config.batch_size // 2)}, or a smaller resize and crop."
    ) from e


class _Loop:
  """The part of a run that changes: the state, and the metrics not yet written."""

  def __init__(
    self,
    run: _Run,
    state: steps.TrainState,
    step_clock: clock.StepClock,
    reporter: reporting.Reporter,
    checkpoints: checkpoint.Checkpoints,
  ):
    c = run.config
    self._run, self._state, self._reporter = run, state, reporter
    self._clock, self._checkpoints = step_clock, checkpoints
    self._train = parallel.train_function(run.model, c.momentum, c.resize, c.crop)
    self._examples = parallel.place(run.train.images, run.train.labels)
    self._tests = parallel.place(run.test.images, run.test.labels)
    self._rates = optimizer.learning_rates(c.base_lr, c.warmup_steps, c.decay_steps, c.total_steps)
    self._window: list[Any] = []

  def run(self, first: int, stop: interruption.StopRequest) -> None:
    """Takes the steps from `first` on, with logs, evaluations and checkpoints on their way."""
    c = self._run.config
    if first and first % c.eval_every == 0 and first < c.total_steps:
      self._evaluate_unless_on_record(first)  # what stopped the run came between save and this
    self._reporter.say("Compiling: the first step takes a while.")
    for step in range(first, c.total_steps):
      self._step(step)
      done = step + 1
      if step == first:
        jax.block_until_ready(self._state)  # it was compiled, which is not to be timed
      self._clock.step_done()
      self._reporter.step(done)
      stopping, last = self._agree_to_stop(done, stop), done == c.total_steps
      if done % c.log_every == 0 or last or stopping:
        self._log(done)
      if done % c.checkpoint_every == 0 or last or stopping:
        self._save(done)
      if stopping and not last:
        raise interruption.Interrupted(
          f"Stopped after step {done} of {c.total_steps}; the same command goes on from there."
        )
      if done % c.eval_every == 0 and not last:
        self._evaluate_unless_on_record(done)

  def _agree_to_stop(self, done: int, stop: interruption.StopRequest) -> bool:
    """Returns whether to stop after this step: several processes must all do so at the same one."""
    if jax.process_count() == 1:
      return stop.requested
    if done % self._run.config.log_every:
      return False
    return bool(np.any(multihost_utils.process_allgather(np.bool_(stop.requested))))

  def _step(self, step: int) -> None:
    run, c = self._run, self._run.config
    with self._reporter.waiting_for_input():
      indices = order.batch(c.seed, step, c.batch_size, len(run.train))[run.layout]
    share = parallel.Share(indices.astype(np.int32), run.layout.astype(np.int32))
    arguments = parallel.StepArguments(
      key=run.seed_key,
      lam=np.float32(order.mixup_lambda(c.seed, step, c.mixup_alpha)),
      learning_rate=self._rates[step],
      flip=np.bool_(c.random_flip),
      random_crop=np.bool_(c.random_crop),
    )
    self._state, part = self._train(self._state, self._examples, share, arguments)
    self._window.append(part)

  def _log(self, done: int) -> None:
    self._check_finite(done)
    means = metrics.merge(self._window)
    rate = float(self._rates[done - 1])
    self._reporter.train_metrics(done, {**means, "learning_rate": rate})
    self._window.clear()

  def _save(self, done: int) -> None:
    with self._clock.paused():
      self._check_finite(done)
      if not steps.is_finite(self._state.params):  # the loss was, but the update overflowed
        self._raise_not_finite(done)
      progress = {"seconds": self._clock.seconds, "timed_steps": self._clock.steps}
      self._checkpoints.save(self._state, progress)

  def _check_finite(self, done: int) -> None:
    """Raises if a loss since the last log is not finite; such a state must not be saved."""
    if not self._window:
      return
    wrong = metrics.first_not_finite(self._window)
    if wrong is not None:
      self._raise_not_finite(done - len(self._window) + wrong + 1)

  def _raise_not_finite(self, step: int) -> None:
    c = self._run.config
    kept = self._checkpoints.latest_step()
    where = f" The state after step {kept} is kept in {self._run.folder}." if kept else ""
    raise errors.UserError(
      f"The loss is not finite at step {step} (learning rate {self._rates[step - 1]:g}, "
      f"{self._run.model.dtype.name}): try a smaller base_lr (now {c.base_lr:g}), a longer "
      f"warm-up (now {c.warmup_steps} steps) or dtype=float32.{where}"
    )

  def _evaluate_unless_on_record(self, done: int) -> None:
    if not self._reporter.has_evaluated(done):
      self._evaluate(done)

  def _evaluate(self, done: int) -> tuple[dict[str, float], np.ndarray]:
    """Evaluates every test image once; returns the means and [N] int32 predictions."""
    run, c = self._run, self._run.config
    with self._clock.paused():
      means, predictions = parallel.evaluate(
        run.model, c.crop, self._state.params, self._tests, c.eval_batch_size
      )
    if not np.isfinite(means["loss"]):
      self._raise_not_finite(done)
    self._reporter.eval_metrics(done, means, len(run.test))
    return means, predictions

  def finish(self) -> dict[str, Any]:
    """Evaluates, exports the weights, draws the pictures and writes the result."""
    run, c = self._run, self._run.config
    seconds, timed = self._clock.seconds, self._clock.steps
    means, predictions = self._evaluate(c.total_steps)
    result = {
      **means,
      "num_test": len(run.test),
      "steps": c.total_steps,
      "seconds": seconds,
      "images_per_second": timed * c.batch_size / seconds if timed else None,
    }
    if run.is_first:
      weights.save(run.folder / "model.npz", jax.device_get(self._state.params))
      _draw(run, means, predictions)
      runs.write_json(run.folder / runs.RESULT, result)  # last: it says that all else is there
    return result


def _draw(run: _Run, means: dict[str, float], predictions: np.ndarray) -> None:
  c, names = run.config, run.test.class_names
  origin = "random initialisation" if c.weights == "none" else pathlib.Path(c.weights).name
  title = f"{c.name}: {c.model} from {origin}, top-1 {means['top1']:.2%}"
  pictures.curves(run.folder / reporting.METRICS, run.folder / "curves.png", title)
  shown = np.linspace(0, len(run.test) - 1, min(_SHOWN, len(run.test))).astype(int)
  captions = [
    names[p] if p == label else f"!{names[p]} ({names[label]})"
    for p, label in zip(predictions[shown], run.test.labels[shown], strict=True)
  ]
  pictures.sheet(
    run.test.images[shown],
    captions,
    run.folder / "predictions.png",
    f"Predictions (and the label, where they differ): {title}",
  )
