"""The table of `--dry_run`: what the runs of a sweep take, their state, and what they lack."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from bit_jax import run_config, weights
from bit_jax.runtime import errors, paths, phrases
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid

_HEADER = (
  *("run", "starts from", "examples", "pixels", "batch", "lr", "steps", "images", "TFLOP"),
  *("disk MB", "state"),
)
_FORMAT = "{:<{names}}  {:<{starts}}  {:>9}  {:>6}  {:>5}  {:>6}  {:>6}  {:>10}  {:>11}  {:>7}  {}"


def describe(planned: Sequence[grid.Planned], out: pathlib.Path) -> str:
  """Returns the table: a line per run, totals, and what is missing.

  Images are those of all steps, each as often as it is used; TFLOP are 10^12 operations of training
  and evaluation. Finished runs show their scores.

  Args:
    planned: The runs.
    out: The sweep's folder; its finished runs give the speed of this machine.
  """
  rows: list[tuple[str, ...]] = [_HEADER]
  work: dict[str, float] = {}
  finished, all_images, all_bytes = [], 0, 0.0
  for one in planned:
    name, c, spec = one.name, one.config, one.spec
    if spec is None:
      rows.append((name, *9 * ("?",), f"can't be run: {one.mistake}"))
      continue
    work[name], images = footprint.flops(c, spec), c.total_steps * c.batch_size
    disk = footprint.disk_bytes(c.model, spec.num_classes, c.momentum_dtype)
    all_images, all_bytes = all_images + images, all_bytes + disk
    state = ledger.state(out / name).removeprefix("open")
    if result := ledger.result(out / name):
      finished.append(name)
      state = f"finished: {ledger.scores(result)}"
    cells = (
      *(name, one.labels.get("start", pathlib.Path(c.weights).name)),
      *(f"{run_config.num_examples(c, spec):,}", f"{c.crop}", f"{c.batch_size}"),
      *(f"{c.base_lr:g}", f"{c.total_steps:,}", f"{images:,}"),
      *(f"{work[name] / 1e12:,.1f}", f"{disk / 1e6:,.0f}", state),
    )
    rows.append(cells)
  names, starts = (max(len(row[i]) for row in rows) for i in range(2))
  lines = [_FORMAT.format(*row, names=names, starts=starts).rstrip() for row in rows]
  lines += [
    "",
    f"{phrases.counted(len(planned), 'run')}: {all_images:,} images, "
    f"{sum(work.values()) / 1e15:,.2f} PFLOP, {all_bytes / 1e9:,.2f} GB of disk.",
  ]
  if len(work) < len(planned):
    lines.append(f"{len(planned) - len(work)} of them can't be run; the others don't need them.")
  lines.append(_hours(work, finished, out))
  return "\n".join([*lines, *missing(one for one in planned if one.name not in finished)])


def _hours(work: dict[str, float], finished: Sequence[str], out: pathlib.Path) -> str:
  """Returns how long the runs take at the speed of those that are finished here.

  In hours of one worker: the number of workers, and their speed side by side, aren't known before.

  Args:
    work: {run: FLOPs}.
    finished: The finished runs.
    out: The sweep's folder.
  """
  seconds = {name: s for name in finished if (s := ledger.seconds(out / name))}
  if not seconds:
    return "The time they take is estimated once a run is finished here."
  rate = sum(work[name] for name in seconds) / sum(seconds.values())
  left = sum(work.values()) - sum(work[name] for name in finished)
  return (
    f"Finished: {len(finished)}, at {rate / 1e9:,.1f} GFLOP/s per worker. At that speed all take "
    f"{sum(work.values()) / rate / 3600:.1f} hours of one worker, the rest "
    f"{left / rate / 3600:.1f}."
  )


def missing(planned: Iterable[grid.Planned]) -> Iterator[str]:
  """Yields a sentence about each missing file or data set, with the number of runs that lack it.

  Reads no data. A sweep may start nonetheless: released checkpoints are downloaded, and a run that
  lacks something fails alone and is tried again by the next sweep.
  """
  lacking = collections.Counter(what for one in planned if one.spec for what in _lacks(one))
  for what, number in lacking.items():
    yield f"{number} of them {'is' if number == 1 else 'are'} not ready: {what}"


def _lacks(one: grid.Planned) -> Iterator[str]:
  c, spec = one.config, one.spec
  assert spec is not None
  if one.after is None and c.weights != "none":
    try:
      weights.locate(c.weights)
    except errors.UserError as e:
      yield str(e)
  if spec.tfds_name is None:
    return
  place = c.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  try:
    folder = paths.named(place)
  except errors.UserError as e:
    yield str(e)
    return
  # `sources.tfds_builders` looks there too, but needs TensorFlow, which takes seconds to import.
  if not any((folder / spec.tfds_name).glob("*/dataset_info.json")):
    yield (
      f"{spec.name} is not prepared in {folder}: python -m bit_jax.data doctor {spec.name} says "
      f"how to get it."
    )
