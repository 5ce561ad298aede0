"""Fine-tunes a network and evaluates it: one run, from its config to its folder."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import (
  architectures,
  checkpoint,
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
    What `result.json` holds: 'top1', 'loss' (and 'top5') over 'num_test' images, 'steps', 'seconds'
    of training, 'images_per_second'. A finished run's result is returned without running again.

  Raises:
    UserError: Something about the config, the data, the weights or the folder can't be used, or the
      loss became NaN or infinite.
    interruption.Interrupted: The process was asked to stop; the state is saved.
  """
  config, spec = experiment.resolve(config)
  layout = parallel.local_rows(order.device_layout(config.batch_size, jax.device_count()))
  folder = runs.open_folder(workdir, config.to_dict(), create=jax.process_index() == 0)
  if result := runs.finished(folder):
    if jax.process_index() == 0:
      print(f"{folder} is finished; this is its result.")
    return result
  params, digest = _initial_params(config, spec.num_classes)
  train, test, version = loading.load(spec, config.data_dir)
  run = _Run(
    config=config,
    folder=folder,
    layout=layout,
    train=_subset(train, config, folder),
    test=test,
    model=models.create(config.model, spec.num_classes, parallel.compute_dtype(config.dtype)),
    seed_key=jax.random.key(config.seed),
    is_first=jax.process_index() == 0,
  )
  if run.is_first:
    _describe_run(run, params, version, digest)
  return _train(run, params)


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
  runs.write_json(run.folder / runs.ENVIRONMENT, environment)
  print(
    f"Training on {len(run.train):,} images of {len(names)} classes ({version}), evaluating "
    f"{len(run.test):,}; {environment['num_devices']} x {environment['device']}, "
    f"{environment['dtype']}; run folder {run.folder}",
    flush=True,
  )
  shown = order.batch(run.config.seed, 0, run.config.batch_size, len(run.train))[:_SHOWN]
  captions = [names[c] for c in run.train.labels[shown]]
  picture = run.folder / "augmented.png"
  pictures.sheet(_augmented(run, shown), captions, picture, "Training images as augmented")


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


def _train(run: _Run, params: Any) -> dict[str, Any]:
  """Trains from the newest checkpoint on, evaluates, and writes the result."""
  c = run.config
  state = steps.create_state(params, optimizer.sgd(c.momentum))
  with checkpoint.Checkpoints(run.folder / "checkpoints") as checkpoints:
    first, seconds = checkpoints.latest_step(), 0.0
    if first:
      state, seconds = checkpoints.restore(state)
      if run.is_first:
        print(f"Resuming after step {first}.")
    reporter = reporting.Reporter(
      run.folder,
      first_step=first,
      total_steps=c.total_steps,
      batch_size=c.batch_size,
      log_every=c.log_every,
      profile=c.profile,
      quiet=not run.is_first,
    )
    with reporter, interruption.StopRequest() as stop:
      loop = _Loop(run, parallel.replicate(state), seconds, reporter, checkpoints)
      del state, params  # one copy less in memory
      loop.run(first, stop)
      return loop.finish()


class _Loop:
  """The part of a run that changes: the state, and the metrics not yet written."""

  def __init__(
    self,
    run: _Run,
    state: steps.TrainState,
    seconds: float,
    reporter: reporting.Reporter,
    checkpoints: checkpoint.Checkpoints,
  ):
    c = run.config
    self._run, self._state, self._reporter = run, state, reporter
    self._checkpoints = checkpoints
    self._train = parallel.train_function(run.model, c.momentum, c.resize, c.crop)
    self._evaluate = parallel.eval_function(run.model, c.crop)
    self._examples = parallel.replicate(parallel.Resident(run.train.images, run.train.labels))
    self._tests = parallel.replicate(parallel.Resident(run.test.images, run.test.labels))
    self._rates = optimizer.learning_rates(c.base_lr, c.warmup_steps, c.decay_steps, c.total_steps)
    self._window: list[Any] = []
    self._seconds, self._resumed = seconds, time.monotonic()

  def run(self, first: int, stop: interruption.StopRequest) -> None:
    """Takes the steps from `first` on, with logs, evaluations and checkpoints on their way."""
    c = self._run.config
    for step in range(first, c.total_steps):
      self._step(step)
      done = step + 1
      self._reporter.step(done)
      last = done == c.total_steps
      if done % c.log_every == 0 or last:
        self._log(done)
      if done % c.eval_every == 0 and not last:
        self.evaluate(done)
      stopping = self._agree_to_stop(done, stop)
      if done % c.checkpoint_every == 0 or last or stopping:
        self._save(done)
      if stopping and not last:
        raise interruption.Interrupted(
          f"Stopped after step {done} of {c.total_steps}; the same command goes on from there."
        )

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
    self._check_finite(done)
    with self._reporter.paused():
      self._checkpoints.save(self._state, self._elapsed())

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

  def _elapsed(self) -> float:
    return self._seconds + time.monotonic() - self._resumed

  def evaluate(self, done: int) -> tuple[dict[str, float], np.ndarray]:
    """Evaluates every test image once; returns the means and [N] int32 predictions.

    With several processes, only the predictions of this one's images are real; others are 0.
    """
    run = self._run
    parts = []
    predictions = np.zeros(len(run.test), np.int32)
    pending = []
    with self._reporter.paused():
      batches = order.eval_batches(len(run.test), run.config.eval_batch_size, jax.device_count())
      for indices, mask in batches:
        indices, mask = parallel.local_rows(indices), parallel.local_rows(mask)
        part, predicted = self._evaluate(
          self._state.params, self._tests, indices.astype(np.int32), mask
        )
        parts.append(part)
        pending.append((indices[mask], mask, predicted))
      for rows, mask, predicted in pending:
        predictions[rows] = np.asarray(predicted)[mask]
      means = metrics.merge(parts)
    if not np.isfinite(means["loss"]):
      self._raise_not_finite(done)
    self._reporter.eval_metrics(done, means, len(run.test))
    return means, predictions

  def finish(self) -> dict[str, Any]:
    """Evaluates, exports the weights, draws the pictures and writes the result."""
    run, c = self._run, self._run.config
    seconds = self._elapsed()
    means, predictions = self.evaluate(c.total_steps)
    result = {
      **means,
      "num_test": len(run.test),
      "steps": c.total_steps,
      "seconds": seconds,
      "images_per_second": c.total_steps * c.batch_size / seconds,
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
