"""The table of `--dry_run`: what the runs of a sweep take, their state, and what they lack."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bit_jax import run_config, weights
from bit_jax.runtime import errors, phrases
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid

_HEADER = (
  *("run", "starts from", "examples", "pixels", "batch", "lr", "steps", "images", "TFLOP"),
  *("disk MB", "state"),
)
_FORMAT = "{:<{names}}  {:<{starts}}  {:>9}  {:>6}  {:>5}  {:>6}  {:>6}  {:>10}  {:>11}  {:>7}  {}"


class _Takes(NamedTuple):
  """What a run takes: images of its steps, operations, and bytes of disk."""

  images: int
  flops: float
  disk: float


def describe(planned: Sequence[grid.Planned], out: pathlib.Path) -> str:
  """Returns the table: a line per run, totals, and what is missing.

  Images are those of all steps, each as often as it is used; TFLOP are 10^12 operations of training
  and evaluation. Finished runs show their scores.

  Args:
    planned: The runs.
    out: The sweep's folder; its finished runs give the speed of this machine.
  """
  takes = {one.name: _takes(one) for one in planned if one.spec is not None}
  results = {name: found for name in takes if (found := ledger.result(out / name)) is not None}
  rows: list[tuple[str, ...]] = [_HEADER]
  for one in planned:
    state = ledger.state(out / one.name).removeprefix("open")
    if (found := results.get(one.name)) is not None:
      state = f"finished: {ledger.scores(found)}"
    rows.append(_row(one, takes.get(one.name), state))
  names, starts = (max(len(row[i]) for row in rows) for i in range(2))
  lines = [_FORMAT.format(*row, names=names, starts=starts).rstrip() for row in rows]
  images, flops, disk = (
    sum(column) for column in zip(_Takes(0, 0, 0), *takes.values(), strict=True)
  )
  lines += [
    "",
    f"{phrases.counted(len(planned), 'run')}: {images:,} images, {flops / 1e15:,.2f} PFLOP, "
    f"{disk / 1e9:,.2f} GB of disk.",
  ]
  if len(takes) < len(planned):
    lines.append(f"{len(planned) - len(takes)} of them can't be run; the others don't need them.")
  lines.append(_hours({name: take.flops for name, take in takes.items()}, list(results), out))
  return "\n".join([*lines, *missing(one for one in planned if one.name not in results)])


def _takes(one: grid.Planned) -> _Takes:
  c = one.config
  assert one.spec is not None
  disk = footprint.disk_bytes(c.model, one.spec.num_classes, c.momentum_dtype)
  return _Takes(c.total_steps * c.batch_size, footprint.flops(c, one.spec), disk)


def _row(one: grid.Planned, takes: _Takes | None, state: str) -> tuple[str, ...]:
  if takes is None or one.spec is None:
    return (one.name, *9 * ("?",), f"can't be run: {one.mistake}")
  c = one.config
  return (
    one.name,
    one.labels.get("start", pathlib.Path(c.weights).name),
    f"{run_config.num_examples(c, one.spec):,}",
    f"{c.crop}",
    f"{c.batch_size}",
    f"{c.base_lr:g}",
    f"{c.total_steps:,}",
    f"{takes.images:,}",
    f"{takes.flops / 1e12:,.1f}",
    f"{takes.disk / 1e6:,.0f}",
    state,
  )


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
  """Yields a sentence on each missing file or data set, with the number of runs that lack it.

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
  folder = pathlib.Path(
    os.path.expanduser(c.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
  )
  # `sources.tfds_builders` looks there too, but needs TensorFlow, which takes seconds to import.
  if spec.tfds_name and not any((folder / spec.tfds_name).glob("*/dataset_info.json")):
    yield (
      f"{spec.name} is not prepared in {folder}: python -m bit_jax.data doctor {spec.name} says "
      f"how to get it."
    )
  if run_config.num_examples(c, spec) > spec.num_train:
    yield (
      f"{spec.name} has {spec.num_train:,} training images, fewer than {c.shots} for each of its "
      f"{spec.num_classes} classes."
    )
