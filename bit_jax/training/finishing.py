"""What a run writes at its end: weights, result, pictures and report."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from bit_jax import weights
from bit_jax.inference.evaluation import Evaluation
from bit_jax.report import run_page
from bit_jax.runs import mistakes, per_class, results, run_folder
from bit_jax.runtime import files
from bit_jax.training import setup


def result(
  run: setup.Run,
  found: Evaluation,
  *,
  steps: int,
  best_step: int | None,
  during: Mapping[int, float],
  seconds: float,
  timed_steps: int,
  startup: float | None,
) -> dict[str, Any]:
  """Returns the content of `result.json`: see `fine_tuning.run`.

  Args:
    run: The run.
    found: The evaluation of its weights on the test images.
    steps: That were done.
    best_step: The step of the weights; None: the last.
    during: {step: accuracy of its weights} of the evaluations that weights are chosen by.
    seconds: That the timed ones took.
    timed_steps: All but the first, which is compiled.
    startup: Seconds from the start to the end of the first step; None if there was none.
  """
  speed = timed_steps * run.config.batch_size / seconds if timed_steps else None
  content = {
    **found.means,
    **per_class.means(found.labels, found.predictions),
    "num_train": len(run.data.train),
    "num_test": len(run.data.test),
    "steps": steps,
    "seconds": seconds,
    "images_per_second": speed,
    "startup_seconds": startup,
    "left_out": run.data.left_out,
    "warnings": run.data.warnings,
  }
  if best_step is not None:
    content["best_step"] = best_step
  if run.data.validation is not None:
    exported = steps if best_step is None else best_step
    content |= {"num_val": len(run.data.validation), "val_top1": during[exported]}
  return content


def write(
  run: setup.Run,
  params: Any,
  found: Evaluation,
  content: dict[str, Any],
  say: Callable[[str], None],
) -> None:
  """Exports the weights, writes the result, and draws the pictures.

  Args:
    run: The run, in the process that writes.
    params: Parameter tree, replicated.
    found: Its evaluation on the test images.
    content: The result.
    say: Is told in a line what can't be written, if the run is complete without it.
  """
  outcome = found.predictions, found.labels
  with run_folder.finishing(run.folder):
    with run.out_of_memory_at_end():
      weights.save(run.folder / run_folder.WEIGHTS, jax.device_get(params))
      results.write(run.folder, run.data, content, *outcome, say)
    results.draw(run.folder, run.config, run.data.test, found.means["top1"], *outcome, say)
    _report(run, found, say)


def _report(run: setup.Run, found: Evaluation, say: Callable[[str], None]) -> None:
  """Writes the most confident mistakes and the report; warns of what can't be written."""
  test, name = run.data.test, f"{run.config.name}: {run.config.model}"
  predicted = found.labels, found.predictions, found.confidence
  mistakes.write(run.folder, test.class_names, *predicted, run.data.paths("test"), say)
  title = f"{name}, top-1 {found.means['top1']:.2%}"
  mistakes.draw(run.folder, test, *predicted, title, say)
  with files.optional(run_folder.REPORT, say):
    run_page.write(run.folder)
