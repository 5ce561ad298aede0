"""Draws what each thread did during five training steps, from a profiler trace of a real run.

    python -m experiments.benchmarks.trace [--streamed] [--photographs DIR] [--trace RUN_FOLDER]

The run trains with `profile=True` on photographs that are resident on the device, or streamed. The
figure shows what the main thread sends, what the CPU device computes and what the image threads
decode. Writes `trace.png` beside this file (`trace_streamed.png`), and prints how long the device
was idle between steps. The profiler slows down everything that is Python; and where the device is
the CPU, it waits for a core while the image threads decode the next batch.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence

from jax import profiler

from bit_jax.runtime import errors, exits, paths, plots
from experiments.benchmarks import inputs, machine

_FOLDER = pathlib.Path(__file__).parent
_PHOTOGRAPHS = 200
_STEPS = 20  # clu traces five of them, from the tenth on
_MILLISECOND = 1e6  # nanoseconds
_IMAGES = "image thread"


@dataclasses.dataclass(frozen=True)
class Kind:
  """Events that are drawn alike.

  Attributes:
    lane: Of the thread or device.
    label: What is done there.
    event: How the profiler's names of them end, without the source line.
    colour: For matplotlib.
  """

  lane: str
  label: str
  event: str
  colour: str


KINDS = (
  Kind("main thread", "waits for the previous step", "block_until_ready", "#d9d9d9"),
  Kind("main thread", "sends the next batch", "$feeds.py training", "#e08214"),
  Kind("main thread", "sends the step", "PjitFunction(_fun)", "#2166ac"),
  Kind("main thread", "writes a log", "$loop.py _write_due_log", "#c51b7d"),
  Kind("device", "computes", "ThunkExecutor::Execute (wait for completion)", "#5aae61"),
  Kind(_IMAGES, "reads, decodes and resizes an image", "$stream.py fill", "#8073ac"),
)


@dataclasses.dataclass(frozen=True)
class Span:
  """An event.

  Attributes:
    kind: What it is.
    lane: Where it is drawn: that of its kind, or one for each image thread.
    start: Milliseconds.
    end: Milliseconds.
  """

  kind: Kind
  lane: str
  start: float
  end: float


def main(argv: Sequence[str]) -> None:
  """Runs, draws and prints the idle time."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument(
    "--photographs", type=paths.argument, default=inputs.photographs(), help="JPEG files"
  )
  parser.add_argument("--trace", type=paths.argument, help="a run that was traced before")
  parser.add_argument("--streamed", action="store_true", help="read the photographs in each step")
  parser.add_argument("--out", type=paths.argument, help="figure to write")
  options = parser.parse_args(argv[1:])
  with tempfile.TemporaryDirectory() as folder:
    run = options.trace or record(pathlib.Path(folder), options.photographs, options.streamed)
    found = spans(run)
  idle = gaps(found)
  if not idle:
    raise errors.UserError(
      f"{run} has no trace of two steps on the CPU, the only device that can be drawn."
    )
  median = statistics.median(step.end - step.start for step in steps(found))
  summary = (
    f"In {len(steps(found))} steps of {median:.0f} ms, the device was idle for {sum(idle):.1f} ms "
    f"in total, {max(idle):.1f} ms at most at a time."
  )
  print(summary)
  name = "trace_streamed.png" if options.streamed else "trace.png"
  draw(found, f"{summary}\n{machine.describe()}", options.out or _FOLDER / name)


def record(folder: pathlib.Path, originals: pathlib.Path | None, streamed: bool) -> pathlib.Path:
  """Trains on photographs and traces some of the steps; returns the run folder."""
  os.environ["BIT_JAX_CACHE"] = str(folder / "cache")
  from bit_jax.configs import folder as folder_config
  from bit_jax.training import loop

  inputs.write_photographs(folder / "set", _PHOTOGRAPHS, originals)
  config = folder_config.get_config(f"model=R14x0.5,weights=none,path={folder / 'set'}")
  config.update({"resize": 160, "crop": 128, "batch_size": 32, "mixup_alpha": 0.1})
  config.update({"total_steps": _STEPS, "warmup_steps": 5, "decay_steps": (10, 15)})
  config.update({"log_every": 2, "eval_every": _STEPS, "checkpoint_every": _STEPS})
  config.profile = True
  if streamed:
    config.resident_share = 0.0
  loop.train_and_evaluate(config, str(folder / "run"))
  return folder / "run"


def spans(run: pathlib.Path) -> list[Span]:
  """Returns the events to draw from a run folder's newest trace.

  Raises:
    UserError: The run was not traced.
  """
  traces = sorted(run.rglob("*.xplane.pb"))
  if not traces:
    raise errors.UserError(f"{run} has no trace: run it with --config.profile=True.")
  lines = [
    line for plane in profiler.ProfileData.from_file(str(traces[-1])).planes for line in plane.lines
  ]
  found = []
  for thread, line in enumerate(lines):
    for event in line.events:
      if kind := kind_of(event.name):
        lane = f"{_IMAGES} {thread}" if kind.lane == _IMAGES else kind.lane
        start = event.start_ns / _MILLISECOND
        found.append(Span(kind, lane, start, start + event.duration_ns / _MILLISECOND))
  return found


def kind_of(name: str) -> Kind | None:
  """Returns the kind of an event; Python's names have a line, such as '$feeds.py:32 training'."""
  plain = re.sub(r"^(\$[^:]*):\d+", r"\1", name)
  return next((kind for kind in KINDS if plain.endswith(kind.event)), None)


def steps(found: Sequence[Span]) -> list[Span]:
  """Returns the steps on the device, in order; shorter programs take images out of a set."""
  computed = _computed(found)
  longest = max((span.end - span.start for span in computed), default=0)
  return [span for span in computed if span.end - span.start > longest / 10]


def gaps(found: Sequence[Span]) -> list[float]:
  """Returns the milliseconds between the end of each program on the device and the next's start."""
  return [max(0.0, b.start - a.end) for a, b in itertools.pairwise(_computed(found))]


def _computed(found: Sequence[Span]) -> list[Span]:
  return sorted((s for s in found if s.lane == "device"), key=lambda s: s.start)


def draw(found: Sequence[Span], title: str, path: pathlib.Path) -> None:
  """Draws a lane for each thread, the events as bars."""
  begin, end = steps(found)[0].start, steps(found)[-1].end
  lanes = ["main thread", "device", *sorted({s.lane for s in found if s.kind.lane == _IMAGES})]
  with plots.figure(path, (12, 4), dpi=120) as figure:
    axes = figure.add_subplot()
    for kind in KINDS:
      for i, lane in enumerate(sorted({span.lane for span in found if span.kind == kind})):
        bars = [
          (s.start - begin, s.end - s.start) for s in found if (s.kind, s.lane) == (kind, lane)
        ]
        axes.broken_barh(
          bars,
          (lanes.index(lane) - 0.4, 0.8),
          facecolors=kind.colour,
          label=None if i else kind.label,
          edgecolor="white",
          linewidth=0.8,
        )
    for number, step in enumerate(steps(found), start=1):
      middle = (step.start + step.end) / 2 - begin
      axes.text(middle, 1, f"step {number}", ha="center", va="center", color="white")
    axes.set_yticks(range(len(lanes)), lanes)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_xlim(-10, end - begin + 10)
    axes.set_title(plots.wrapped(title, 130, 3), fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
