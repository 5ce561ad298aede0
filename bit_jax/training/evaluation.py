"""Evaluations during and after training, the best weights that they choose, and patience."""

import pathlib
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from bit_jax import weights
from bit_jax.inference import feeds
from bit_jax.inference.evaluation import Evaluation, evaluate
from bit_jax.models import architectures
from bit_jax.runs import reporting
from bit_jax.runtime import clock, errors, parallel, processes
from bit_jax.training import agreement, setup


class Evaluator:
  """Evaluates a run, reports it, and keeps the best weights in the run folder."""

  def __init__(
    self,
    run: setup.Run,
    reporter: reporting.Reporter,
    step_clock: clock.StepClock,
    tests: feeds.Feed,
    during: feeds.Feed,
    batch_size: int,
    raise_not_finite: Callable[[int], NoReturn],
    batch_sent: Callable[[], object],
  ):
    """Takes what evaluations need.

    Args:
      run: The run.
      reporter: Reports evaluations.
      step_clock: The clock of the steps, which evaluations pause.
      tests: The test images.
      during: The images that weights are chosen on; `tests` without a validation part.
      batch_size: Images in a batch over all devices.
      raise_not_finite: Raises the error for a loss that isn't finite, at a step.
      batch_sent: Called after each batch; may raise.
    """
    self._run, self._reporter, self._clock = run, reporter, step_clock
    self._tests, self._during, self._batch_size = tests, during, batch_size
    self._raise_not_finite, self._batch_sent = raise_not_finite, batch_sent

  def score(self, params: Any, done: int, feed: feeds.Feed | None = None) -> Evaluation:
    """Evaluates every image once, by default those that weights are chosen on.

    Args:
      params: Parameter tree, replicated.
      done: Steps done.
      feed: The images.
    """
    feed, run, size = feed or self._during, self._run, self._run.config.test_size
    fewer = self._batch_size // 2
    advice = f"--config.eval_batch_size={fewer} (now {self._batch_size})"
    if fewer < jax.device_count():
      advice = f"a smaller --config.test_size (now {size})"
    with self._clock.paused(), run.out_of_memory(advice):
      count = self._reporter.evaluating(len(feed.part))

      def report(images: int) -> None:
        count(images)
        self._batch_sent()

      evaluation = evaluate(feed, run.model, size, params, self._batch_size, report)
    if not np.isfinite(evaluation.means["loss"]):
      self._raise_not_finite(done)
    return evaluation

  def evaluate(self, params: Any, done: int) -> Evaluation:
    """Evaluates the images that weights are chosen on; keeps the weights if none were better."""
    evaluation = self.score(params, done)
    better = evaluation.means["top1"] > max(self._reporter.evaluations.values(), default=-1)
    if self._run.config.keep_best and self._run.is_first and better:
      with self._clock.paused():
        weights.save(weights_path(self._run.folder, done), jax.device_get(params))
    # After the weights: where there is a record, there are weights.
    self._record(done, evaluation)
    return evaluation

  def recover(self, first: int) -> None:
    """Repeats missing evaluations before a resumed step, and reports those that are lost.

    Only the weights of the best one are kept.
    """
    c, on_record = self._run.config, self._reporter.evaluations
    missing = [s for s in range(c.eval_every, first, c.eval_every) if s not in on_record]
    for step in self._kept(missing) if c.keep_best else ():
      self._record(step, self.score(self._load(step), step))
    if lost := [str(step) for step in missing if step not in on_record]:
      self._reporter.say(
        f"warning: {reporting.METRICS} is missing the evaluations after steps {', '.join(lost)}: "
        f"{'patience ignores them, and ' if c.patience else ''}the curves have gaps there."
      )

  def out_of_patience(self, done: int) -> bool:
    """Returns, and reports, whether the last evaluations did not improve."""
    evaluations, patience = self._reporter.evaluations, self._run.config.patience
    is_over = exhausted(evaluations, patience)
    if is_over:
      self._reporter.say(
        f"No improvement over step {best(evaluations)} for {patience} evaluations: training ends "
        f"after step {done}."
      )
    return is_over

  def discard(self, saved: Collection[int]) -> None:
    """Removes weights that no resumed run needs.

    A run may resume from the checkpoint that is being saved, or, if that one can't be completed or
    used, from those there are, after the steps in `saved`. Each needs the best weights until then.
    """
    if self._run.config.keep_best and self._run.is_first:
      now = self._reporter.evaluations
      before = [{step: top1 for step, top1 in now.items() if step <= last} for last in saved]
      discard(self._run.folder, [best(e) for e in (*before, now) if e])

  def finish(self, params: Any, done: int) -> tuple[Any, int | None, Evaluation]:
    """Chooses the weights to export, and evaluates them on the test images.

    Args:
      params: Those after the last step.
      done: Steps done.

    Returns:
      The parameters; the step of the best ones, None if the last ones are exported; the evaluation.
    """
    known = done in self._reporter.evaluations  # where patience ended the run
    last = None if known else self.evaluate(params, done)
    best_step = None
    if self._run.config.keep_best:
      with self._run.out_of_memory_at_end():
        params, best_step = self._best(params)
    exported = done if best_step is None else best_step
    if self._run.chooses_on == reporting.VAL:
      evaluation = self.score(params, exported, self._tests)
      self._reporter.eval_metrics(exported, evaluation.means, len(evaluation.labels))
      return params, best_step, evaluation
    if last is not None and exported == done:
      return params, best_step, last
    return params, best_step, self.score(params, exported)

  def _best(self, params: Any) -> tuple[Any, int | None]:
    """Returns the weights of the best evaluation and its step; `params` and None if none exist."""
    evaluations = self._reporter.evaluations
    kept = {step: evaluations[step] for step in self._kept(evaluations)}
    wanted, step = best(evaluations), best(kept) if kept else None
    if step != wanted:
      chosen = "the last weights" if step is None else f"those after step {step}"
      warning = f"The best weights, those after step {wanted}, are missing: {chosen} are used."
      self._reporter.say(f"warning: {warning}")
      self._run.data.warnings.append(warning)
    return (params if step is None else self._load(step)), step

  def _kept(self, steps: Iterable[int]) -> list[int]:
    """Returns those of some steps whose weights the first process, which wrote them, finds."""
    folder, asked = self._run.folder, list(steps)
    found: list[int] = processes.decided(
      lambda: [step for step in asked if weights_path(folder, step).exists()]
    )
    return found

  def _record(self, done: int, evaluation: Evaluation) -> None:
    images = len(evaluation.labels)
    self._reporter.eval_metrics(done, evaluation.means, images, self._run.chooses_on)

  def _load(self, step: int) -> Any:
    """Returns the weights that were kept after a step, on the devices; all processes read them.

    Raises:
      UserError: This process can't read what the first one finds, or reads something else.
    """
    architecture = architectures.find(self._run.config.model)
    classes, path = self._run.model.num_classes, weights_path(self._run.folder, step)
    if not agreement.appears(path):
      raise errors.UserError(
        f"Process {jax.process_index()} on {platform.node()} doesn't see {path}, the best weights, "
        f"which the first process sees: give all processes a --workdir on a disk that they share, "
        f"and run the same command again to resume."
      )
    loaded = weights.load(path, architecture, head="keep", num_classes=classes)
    agreement.require_same({f"the hash of {path.name}": loaded.sha256})
    return parallel.replicate(loaded.params)


def best(evaluations: Mapping[int, float]) -> int:
  """Returns the step of the highest accuracy, the earliest on ties.

  Args:
    evaluations: {step: top-1 accuracy}; at least one.
  """
  return min(evaluations, key=lambda step: (-evaluations[step], step))


def exhausted(evaluations: Mapping[int, float], patience: int | None) -> bool:
  """Returns whether the last `patience` evaluations did not improve on one before them.

  Args:
    evaluations: {step: top-1 accuracy}.
    patience: At least 1; None never ends a run.
  """
  if patience is None or not evaluations:
    return False
  return sum(step > best(evaluations) for step in evaluations) >= patience


def weights_path(folder: pathlib.Path, step: int) -> pathlib.Path:
  """Returns the file of the weights after a step that were the best so far."""
  return folder / f"best-{step}.npz"


def discard(folder: pathlib.Path, keep: Collection[int] = ()) -> None:
  """Removes the best weights from a run folder, except those after the steps in `keep`."""
  kept = {weights_path(folder, step) for step in keep}
  for path in folder.glob("best-*.npz"):
    if path not in kept:
      path.unlink(missing_ok=True)
