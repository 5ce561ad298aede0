"""Fine-tunes a network and evaluates it: one run, from its config to its folder."""

import contextlib
import functools
import pathlib
import time
from typing import Any

import jax

from bit_jax import run_config
from bit_jax.data import opening, order
from bit_jax.run_config import RunConfig
from bit_jax.runs import description, reporting, run_folder
from bit_jax.runtime import (
  clock,
  devices,
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
  evaluation,
  loop,
  optimizer,
  planning,
  setup,
  steps,
  windows,
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
    with signals.reacting(functools.partial(loop.stopped, folder, config, reading, saved)):
      loaded = setup.load(config, data, folder, layout, weights_at=weights_at, began=began)
    with stopping.StopRequest() as stop:
      preparing = "while the run was prepared"
      stop.nothing_unsaved(functools.partial(loop.stopped, folder, config, preparing, saved))
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
      window = windows.unpacked(progress.get("window", ()), run.model.num_classes)
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
        step_loop = loop.Loop(run, state, first, stop, step_clock, reporter, checkpoints, window)
        del state
      with run.out_of_memory(planning.advice(step_loop.plan, c, run.model.platform)):
        done = step_loop.run()
      return step_loop.finish(done)
