"""What a sweep takes, before it is made: the table of `--dry_run`."""

import pathlib
from collections.abc import Iterator, Sequence

from bit_jax import experiment
from experiments import footprint
from experiments.sweeping import grid, ledger

_HEADER = (
  *("run", "starts from", "examples", "pixels", "batch", "lr", "steps", "images", "TFLOP"),
  *("disk MB", "state"),
)
_FORMAT = "{:<{names}}  {:<{starts}}  {:>9}  {:>6}  {:>5}  {:>6}  {:>6}  {:>10}  {:>11}  {:>7}  {}"


def describe(planned: Sequence[grid.Planned], out: pathlib.Path) -> str:
  """Returns the table: a line a run, and what they take in all.

  Images are those that steps go through, each as often as it is used; TFLOP are 10^12 operations of
  training and evaluation.

  Args:
    planned: The runs.
    out: The sweep's folder, whose finished runs tell how fast this machine is.
  """
  rows = [_HEADER, *(_row(one, out) for one in planned)]
  names, starts = (max(len(row[i]) for row in rows) for i in range(2))
  lines = [_FORMAT.format(*row, names=names, starts=starts).rstrip() for row in rows]
  return "\n".join([*lines, "", *_totals(planned, out)])


def _row(one: grid.Planned, out: pathlib.Path) -> tuple[str, ...]:
  if one.spec is None:
    return (one.name, *9 * ("?",), f"can't be made: {one.mistake}")
  c = one.config
  state = ledger.state(out / one.name)
  return (
    one.name,
    one.labels.get("start", pathlib.Path(c.weights).name),
    f"{experiment.num_examples(c, one.spec):,}",
    f"{c.crop}",
    f"{c.batch_size}",
    f"{c.base_lr:g}",
    f"{c.total_steps:,}",
    f"{c.total_steps * c.batch_size:,}",
    f"{footprint.flops(c, one.spec) / 1e12:,.1f}",
    f"{footprint.disk_bytes(c, one.spec) / 1e6:,.0f}",
    "" if state == "open" else state,
  )


def _totals(planned: Sequence[grid.Planned], out: pathlib.Path) -> Iterator[str]:
  makeable = [(one.config, one.spec, one.name) for one in planned if one.spec is not None]
  work = {name: footprint.flops(c, spec) for c, spec, name in makeable}
  images = sum(c.total_steps * c.batch_size for c, _, _ in makeable)
  disk = sum(footprint.disk_bytes(c, spec) for c, spec, _ in makeable)
  yield (
    f"{len(planned)} runs: {images:,} images, {sum(work.values()) / 1e15:,.2f} PFLOP, "
    f"{disk / 1e9:,.2f} GB of disk."
  )
  if len(makeable) < len(planned):
    yield f"{len(planned) - len(makeable)} of them can't be made; the others go on without them."
  finished = [name for name in work if ledger.state(out / name) == "finished"]
  seconds = {name: ledger.seconds(out / name) for name in finished}
  timed = {name: s for name, s in seconds.items() if s}
  if timed:
    rate = sum(work[name] for name in timed) / sum(timed.values())
    left = sum(work.values()) - sum(work[name] for name in finished)
    yield (
      f"{len(finished)} are finished, at {rate / 1e9:,.1f} GFLOP/s of wall time; at that speed all "
      f"take {sum(work.values()) / rate / 3600:.1f} hours, the rest {left / rate / 3600:.1f}."
    )
