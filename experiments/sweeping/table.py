"""What a sweep takes, before it is made: the table of `--dry_run`."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bit_jax import run_config
from bit_jax.data import datasets
from bit_jax.runtime import phrases
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid, needs

_HEADER = (
  *("run", "starts from", "examples", "pixels", "batch", "lr", "steps", "images", "TFLOP"),
  *("disk MB", "state"),
)
_FORMAT = "{:<{names}}  {:<{starts}}  {:>9}  {:>6}  {:>5}  {:>6}  {:>6}  {:>10}  {:>11}  {:>7}  {}"


class _Takes(NamedTuple):
  """What a run takes: images through its steps, operations, and bytes of disk."""

  images: int
  flops: float
  disk: float


def describe(planned: Sequence[grid.Planned], out: pathlib.Path) -> str:
  """Returns the table: a line a run, what they take in all, and what isn't ready for them.

  Images are those that steps go through, each as often as it is used; TFLOP are 10^12 operations of
  training and evaluation.

  Args:
    planned: The runs.
    out: The sweep's folder, whose finished runs tell how fast this machine is.
  """
  takes = {one.name: _takes(one.config, one.spec) for one in planned if one.spec is not None}
  states = {name: ledger.state(out / name) for name in takes}
  finished = [name for name, state in states.items() if state == "finished"]
  rows = [
    _HEADER,
    *(_row(one, takes.get(one.name), states.get(one.name, "open")) for one in planned),
  ]
  names, starts = (max(len(row[i]) for row in rows) for i in range(2))
  lines = [_FORMAT.format(*row, names=names, starts=starts).rstrip() for row in rows]
  lines += ["", *_totals(planned, takes), _hours(takes, finished, out)]
  lines += needs.missing(one for one in planned if one.name not in finished)
  return "\n".join(lines)


def _takes(config: Any, spec: datasets.DatasetSpec) -> _Takes:
  images = config.total_steps * config.batch_size
  return _Takes(images, footprint.flops(config, spec), footprint.disk_bytes(config, spec))


def _row(one: grid.Planned, takes: _Takes | None, state: ledger.State) -> tuple[str, ...]:
  if takes is None or one.spec is None:
    return (one.name, *9 * ("?",), f"can't be made: {one.mistake}")
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
    "" if state == "open" else state,
  )


def _totals(planned: Sequence[grid.Planned], takes: Mapping[str, _Takes]) -> Iterator[str]:
  images, flops, disk = (
    sum(column) for column in zip(_Takes(0, 0, 0), *takes.values(), strict=True)
  )
  yield (
    f"{phrases.counted(len(planned), 'run')}: {images:,} images, {flops / 1e15:,.2f} PFLOP, "
    f"{disk / 1e9:,.2f} GB of disk."
  )
  if repeated := sum(one.listed - 1 for one in planned):
    yield f"{repeated} more that the file yields are the same as one of these, and made once."
  if len(takes) < len(planned):
    yield f"{len(planned) - len(takes)} of them can't be made; the others go on without them."


def _hours(takes: Mapping[str, _Takes], finished: Sequence[str], out: pathlib.Path) -> str:
  """Returns how long they take at the speed of those that are finished here.

  In hours of one worker: how many are at work at once isn't known before, nor whether each is then
  as fast.
  """
  seconds = {name: s for name in finished if (s := ledger.seconds(out / name))}
  if not seconds:
    return "How many hours they take is told once a run is finished here."
  work = {name: t.flops for name, t in takes.items()}
  rate = sum(work[name] for name in seconds) / sum(seconds.values())
  left = sum(work.values()) - sum(work[name] for name in finished)
  return (
    f"{len(finished)} {'is' if len(finished) == 1 else 'are'} finished, at {rate / 1e9:,.1f} "
    f"GFLOP/s of a worker's time; at that speed all take {sum(work.values()) / rate / 3600:.1f} "
    f"hours of one worker, the rest {left / rate / 3600:.1f}."
  )
