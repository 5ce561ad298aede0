"""The sections on what runs took."""

from collections.abc import Iterator, Sequence

from bit_jax.runtime import phrases
from experiments.results import effort, intervals, pages, wording


def efforts(found: Sequence[effort.Effort]) -> Iterator[pages.Block]:
  """Yields a table of the time that runs took."""
  if not found:
    return
  yield pages.Heading(2, "What it took")
  yield pages.Paragraph(
    "Steps alone: runs x images / images a second, the median; and from start to end, start-up and "
    "evaluations included, where a sweep timed it."
  )
  header = ("network", "pixels", "batch", "steps", "on")
  titles = (*header, "runs", "images each", "images/s", "steps, hours", "in all, hours")
  rows = []
  for one in found:
    name, resize, crop, batch, steps = one.sizes
    hours = one.count * one.images / one.rate / 3600
    whole = "" if one.seconds is None else f"{one.seconds / 3600:.2f}"
    made = (f"{one.count}", f"{one.images:,}", f"{one.rate:,.0f}", f"{hours:.2f}", whole)
    rows.append((name, f"{resize} -> {crop}", f"{batch}", f"{steps:,}", one.place, *made))
  yield pages.Table(titles, rows, names=len(header))


def startups(found: Sequence[effort.Startup]) -> Iterator[pages.Block]:
  """Yields a table of the first and the later start-ups of what is compiled once."""
  if not found:
    return
  yield pages.Heading(2, "Start-up")
  yield pages.Paragraph(
    "Seconds from the beginning of a run (of its last attempt, where it was interrupted) until its "
    "first step is done. Runs of one architecture, size, batch and number of classes share what is "
    "compiled. The first ones are those that began before any of the others had done a step: they "
    "compile, unless an earlier run on the machine had. All the others are later ones."
  )
  header = ("network", "pixels", "batch", "classes", "on")
  rows = []
  for one in found:
    name, resize, crop, batch, classes = one.sizes
    program = (name, f"{resize} -> {crop}", f"{batch}", f"{classes}", one.place)
    rows.append((*program, _seconds(one.first), _seconds(one.later) if one.later else "none"))
  yield pages.Table((*header, "first runs", "later runs"), rows, names=len(header))


def _seconds(of: intervals.Summary) -> str:
  spread = f" ({wording.span((of.low, of.high))})" if of.count > 1 else ""
  return f"{of.median:.1f}{spread}, {phrases.counted(of.count, 'run')}"
