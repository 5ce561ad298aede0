"""Draws what each thread did during five training steps, from a profiler trace of a real run.

    python -m experiments.benchmarks.trace [--streamed] [--photographs DIR] [--trace RUN_FOLDER]

The run is `bit_jax.training.loop`'s, with `profile=True`, on photographs that lie on the device, or
that
are streamed: what the main thread sends, what the CPU device computes, and what the image threads
decode. Writes `trace.png` beside this file (`trace_streamed.png`), and says how long nothing was
computed in between. The profiler itself slows down whatever is Python; and where the device is
the CPU, it waits for a core while the image threads decode the next batch.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from jax import profiler

from bit_jax.runtime import paths, plots
from experiments.benchmarks import machine, photographs

_FOLDER = pathlib.Path(__file__).parent
_PHOTOGRAPHS = 200
_STEPS = 20  # clu traces five of them, from the tenth on
_FEWEST = 2  # steps that have a time between them
_EDGE: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8}
_MILLISECOND = 1e6  # nanoseconds


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
  Kind("main thread", "waits for the step before", "block_until_ready", "#d9d9d9"),
  Kind("main thread", "sends the next batch", "$feeds.py training", "#e08214"),
  Kind("main thread", "sends the step", "PjitFunction(_fun)", "#2166ac"),
  Kind("main thread", "writes a log", "$loop.py _write_due_log", "#c51b7d"),
  Kind("device", "computes", "ThunkExecutor::Execute (wait for completion)", "#5aae61"),
  Kind("image threads", "read, decode and resize an image", "$stream.py fill", "#8073ac"),
)


@dataclasses.dataclass(frozen=True)
class Span:
  """An event.

  Attributes:
    kind: What it is.
    thread: Number of its thread, in the order of the trace.
    start: Milliseconds.
    end: Milliseconds.
  """

  kind: Kind
  thread: int
  start: float
  end: float


def main(argv: Sequence[str]) -> None:
  """Runs, draws and tells."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument(
    "--photographs", type=paths.argument, default=photographs.default_originals(), help="JPEG files"
  )
  parser.add_argument("--trace", type=paths.argument, help="a run that was traced already")
  parser.add_argument("--streamed", action="store_true", help="photographs read in each step")
  parser.add_argument("--out", type=paths.argument, help="picture to write")
  options = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    run = options.trace or record(pathlib.Path(folder), options.photographs, options.streamed)
    found = spans(run)
  if len(_steps(found)) < _FEWEST:
    parser.error(f"{run} holds no trace of steps on the CPU, which is what can be drawn.")
  idle = gaps(found)
  said = (
    f"In {len(_steps(found))} steps of {_median_step(found):.0f} ms, the device stood still for "
    f"{sum(idle):.1f} ms in all, {max(idle):.1f} ms at most at a time."
  )
  print(said)
  name = "trace_streamed.png" if options.streamed else "trace.png"
  draw(found, f"{said}\n{machine.describe()}", options.out or _FOLDER / name)


def record(folder: pathlib.Path, originals: pathlib.Path | None, streamed: bool) -> pathlib.Path:
  """Trains on photographs, some steps of it traced; returns the run folder."""
  os.environ["BIT_JAX_CACHE"] = str(folder / "cache")
  from bit_jax.configs import folder as folder_config
  from bit_jax.training import loop

  photographs.prepare(folder / "set", _PHOTOGRAPHS, originals)
  config = folder_config.get_config(f"model=R14x0.5,weights=none,path={folder / 'set'}")
  config.update({"resize": 160, "crop": 128, "batch_size": 32})
  if streamed:
    config.resident_share = 0.0
  config.update({"total_steps": _STEPS, "warmup_steps": 5, "decay_steps": (10, 15)})
  config.update({"mixup_alpha": 0.1, "log_every": 2, "profile": True})
  config.update({"eval_every": _STEPS, "checkpoint_every": _STEPS})
  loop.train_and_evaluate(config, str(folder / "run"))
  return folder / "run"


def spans(run: pathlib.Path) -> list[Span]:
  """Returns the events that are to be drawn from a run folder's newest trace.

  Raises:
    FileNotFoundError: The run was not traced.
  """
  traces = sorted(run.rglob("*.xplane.pb"))
  if not traces:
    raise FileNotFoundError(f"{run} holds no trace: run it with --config.profile=True.")
  lines = [
    line for plane in profiler.ProfileData.from_file(str(traces[-1])).planes for line in plane.lines
  ]
  found = []
  for thread, line in enumerate(lines):
    for event in line.events:
      kind = _kind(event.name)
      if kind is not None:
        start = event.start_ns / _MILLISECOND
        found.append(Span(kind, thread, start, start + event.duration_ns / _MILLISECOND))
  return found


def gaps(found: Sequence[Span]) -> list[float]:
  """Returns the milliseconds between the end of each program on the device and the next's start."""
  computed = _computed(found)
  return [max(0.0, b.start - a.end) for a, b in itertools.pairwise(computed)]


def draw(found: Sequence[Span], title: str, path: pathlib.Path) -> None:
  """Draws a lane for each thread, the events as bars."""
  with plots.figure(path, (12, 4), dpi=120) as figure:
    axes = figure.add_subplot()
    begin = min(span.start for span in _steps(found))
    lanes = _lanes(found)
    for kind in KINDS:
      for thread in sorted({span.thread for span in found if span.kind == kind}):
        bars = [
          (s.start - begin, s.end - s.start) for s in found if (s.kind, s.thread) == (kind, thread)
        ]
        row = lanes[_lane(kind, thread)]
        label = kind.label if thread == min(s.thread for s in found if s.kind == kind) else None
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=kind.colour, label=label, **_EDGE)
    for number, step in enumerate(_steps(found), start=1):
      middle = (step.start + step.end) / 2 - begin
      axes.text(middle, lanes["device"], f"step {number}", ha="center", va="center", color="white")
    axes.set_yticks(list(lanes.values()), list(lanes))
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_xlim(-10, max(span.end for span in _steps(found)) - begin + 10)
    axes.set_title(plots.wrapped(title, 130, 3), fontsize=10, loc="left")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _kind(name: str) -> Kind | None:
  """Returns what an event is; Python's carry a line number, such as '$feeds.py:32 training'."""
  file, _, function = name.partition(":") if name.startswith("$") else (name, "", "")
  plain = f"{file} {function.partition(' ')[2]}" if function else name
  for kind in KINDS:
    if plain.endswith(kind.event):
      return kind
  return None


def _computed(found: Sequence[Span]) -> list[Span]:
  """Returns the programs on the device, in their order."""
  return sorted((s for s in found if s.kind.lane == "device"), key=lambda s: s.start)


def _steps(found: Sequence[Span]) -> list[Span]:
  """Returns those that are steps: what takes images out of a set is a program, but a short one."""
  computed = _computed(found)
  longest = max((span.end - span.start for span in computed), default=0)
  return [span for span in computed if span.end - span.start > longest / 10]


def _median_step(found: Sequence[Span]) -> float:
  lengths = sorted(step.end - step.start for step in _steps(found))
  return lengths[len(lengths) // 2]


def _lane(kind: Kind, thread: int) -> str:
  return f"image thread {thread}" if kind.lane == "image threads" else kind.lane


def _lanes(found: Sequence[Span]) -> dict[str, int]:
  """Returns {lane: row}; a step may be run by any thread of the device, images by their own."""
  readers = sorted({s.thread for s in found if s.kind.lane == "image threads"})
  names = ["main thread", "device", *(f"image thread {thread}" for thread in readers)]
  return {name: row for row, name in enumerate(names)}


if __name__ == "__main__":
  main(sys.argv[1:])
