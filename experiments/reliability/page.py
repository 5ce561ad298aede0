"""The page on reliability, `docs/reliability.md`, made from the records beside this module.

Each experiment keeps a file of JSON objects, one a line, with its counts by kind. A file that isn't
there yet is a section that says so.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from bit_jax.runtime import files, phrases, plots

Record = dict[str, Any]
_FOLDER = pathlib.Path(__file__).parent
_DOCS = pathlib.Path(__file__).parents[2] / "docs"
FUZZ = _FOLDER / "fuzz.jsonl"
SOAK, VERSIONS = _FOLDER / "soak.jsonl", _FOLDER / "versions.jsonl"
PAGE, CURVE = _DOCS / "reliability.md", _DOCS / "figures" / "soak.png"
_LABELS = ("kind", "part")  # the field that names what a record is of
# Fields on how a record was made; they are not among its counts.
_ABOUT = ("date", "seed", "python", "packages", "commit", "machine", *_LABELS)
_SECONDS = "most_seconds_to_the_end"
_BY_PHASE = ("phases", _SECONDS)
_OF_INPUTS = ("inputs", "accepted", "refused", "findings")  # counts of hostile input
_SHOWN_PACKAGES = ("jax", "flax", "orbax-checkpoint", "numpy", "tensorflow-cpu")
_EMPTY = "Not measured yet."
_TEXT = """# Reliability

What runs and files do when something goes wrong, as far as it was tried. `python -m
experiments.reliability` writes this page from the records in `experiments/reliability`, which count
what was seen.

{sections}

## Not covered

- GPUs and TPUs: everything ran on CPU devices of one machine, several processes too, not on a
  pod or a cluster.
- Power loss and failing disks: after a kill of a process, the system still writes its files. Files
  are synced before they replace others, but no test cuts the power.
- Network file systems such as NFS, object stores, and file systems other than Linux's.
- Windows and macOS.
- A server that sends a response's headers, or the length of a part of it, byte by byte and each in
  time: such a download goes on until it is interrupted. Slow contents end it.
- Runs of days, networks of full size over thousands of steps, and data sets larger than memory.
- Errors of memory or of a processor that no program reports.
"""


@dataclasses.dataclass(frozen=True)
class Section:
  """A section of the page.

  Attributes:
    title: Its heading.
    text: What was done.
    file: The name of its records.
    command: What makes them.
  """

  title: str
  text: str
  file: str
  command: str


_FAULTS = Section(
  "Faults",
  "Disks that are full or read-only, files that are damaged: each must end in one sentence, with "
  "the run as it was. Of a damaged checkpoint, which is restored: harmless, it gave its own state; "
  "recovered, the one before was used; refused, one sentence. A run ends like the undisturbed one: "
  "harmless, as if nothing had been; recovered, from the checkpoint before; refused, by the same "
  "command, once the fault that it stopped for with one sentence was gone. Lost: anything else.",
  "faults.jsonl",
  "make faults",
)
_PROCESSES = Section(
  "Several processes",
  "Runs of several processes on one machine, which differ, are killed, frozen or asked to stop.",
  "processes.jsonl",
  "make processes",
)
_KILLS = Section(
  "Kills and signals",
  "Runs are killed in every phase, or asked to stop, and started again with the same command. "
  "Their weights, metrics and tables must be those of a run that nobody disturbed: unlike are runs "
  "whose are not, wrong are ends without the signal's exit status or the one sentence.",
  "kills.jsonl",
  "make kills",
)


def write() -> None:
  """Writes the page, and the figure of long runs if there are records of them."""
  if records := read(SOAK):
    draw(records, CURVE)
  with files.replacing(PAGE) as temporary:
    temporary.write_text(text(_FOLDER), encoding="utf-8")


def read(path: pathlib.Path) -> list[Record]:
  """Returns the records of a file; none if it isn't there."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def text(folder: pathlib.Path) -> str:
  """Returns the page of a folder's records."""
  sections = [_kills(read(folder / _KILLS.file))]
  sections += [_counted(section, read(folder / section.file)) for section in (_FAULTS, _PROCESSES)]
  sections += [_input(read(folder / FUZZ.name))]
  sections += [_soak(read(folder / SOAK.name)), _versions(read(folder / VERSIONS.name))]
  return _TEXT.format(sections="\n\n".join(sections))


def _counted(section: Section, records: Sequence[Record]) -> str:
  """Returns a section whose records are counts: one row for each kind."""
  parts = [f"## {section.title}\n", f"{section.text} (`{section.command}`)\n"]
  if not records:
    return "\n".join([*parts, _EMPTY])
  sums = _sums(shown := _newest(records))
  columns = list(dict.fromkeys(name for counts in sums.values() for name in counts))
  rows = [
    (label, *(_cell(counts[name]) if name in counts else "" for name in columns))
    for label, counts in sums.items()
  ]
  titles = ("", *(name.replace("_", " ") for name in columns))
  return "\n".join([*parts, _table(titles, rows), "", _made(shown)])


def _kills(records: Sequence[Record]) -> str:
  """Returns the section on kills and signals: a row for each phase."""
  parts = [f"## {_KILLS.title}\n", f"{_KILLS.text} (`{_KILLS.command}`)\n"]
  if not records:
    return "\n".join([*parts, _EMPTY])
  sums = _sums(shown := _newest(records))
  killed, asked = sums.get("kills", {}), sums.get("signals", {})
  for counts in (killed, asked):
    if counts:
      words = (
        f"{n.replace('_', ' ')}: {_cell(x)}" for n, x in counts.items() if n not in _BY_PHASE
      )
      parts.append(f"- {'; '.join(words)}")
  by_phase = [asked.get("phases", {}), killed.get("phases", {}), asked.get(_SECONDS, {})]
  phases = dict.fromkeys(p for counts in (by_phase[1], by_phase[0]) for p in counts)
  rows = [(p, *(_cell(counts[p]) if counts.get(p) else "" for counts in by_phase)) for p in phases]
  rows = [row for row in rows if any(row[1:])]
  titles = ("phase", "signals", "kills", "most seconds from a signal to the end")
  return "\n".join([*parts, "", _table(titles, rows), "", _made(shown)])


def _sums(records: Sequence[Record]) -> dict[str, Record]:
  """Returns the counts of records by their label."""
  sums: dict[str, Record] = {}
  for record in records:
    label = str(next((record[name] for name in _LABELS if name in record), "all"))
    counts = {name: value for name, value in record.items() if name not in _ABOUT}
    sums[label] = _added(sums.get(label, {}), counts)
  return sums


def _newest(records: Sequence[Record]) -> list[Record]:
  """Returns the records without those that were made again: of the same kind, seed and signals."""
  names = (*_LABELS, "seed", "signals")
  return list({json.dumps([record.get(n) for n in names]): record for record in records}.values())


def _added(first: Mapping[str, Any], second: Mapping[str, Any]) -> Record:
  """Returns the counts of two records together; of what can't be added, the later one's."""
  both = {**first, **second}
  for name in first.keys() & second.keys():
    one, other = first[name], second[name]
    if isinstance(one, dict) and isinstance(other, dict):
      both[name] = _added(one, other)
    elif isinstance(one, list) and isinstance(other, list):
      both[name] = [*one, *(item for item in other if item not in one)]
    elif isinstance(one, float) or isinstance(other, float):
      both[name] = max(one, other)  # a time or a share
    elif isinstance(one, int) and isinstance(other, int):
      both[name] = one + other
  return both


def _cell(value: Any) -> str:
  """Returns a count, a time or a list of words as text."""
  if isinstance(value, list):
    return ", ".join(map(str, value)) or "none"
  return f"{value:,}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [titles, ["---"] * len(titles), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _made(records: Sequence[Record]) -> str:
  """Returns a sentence on when records were made, and with which versions."""
  dates = sorted({str(record.get("date", ""))[:10] for record in records})
  used: dict[str, list[str]] = {}
  for record in records:
    found = {"Python": record.get("python"), **record.get("packages", {})}
    for name, version in found.items():
      if version and version not in used.setdefault(name, []):
        used[name].append(version)
  names = [name for name in ("Python", *_SHOWN_PACKAGES) if used.get(name)]
  named = [f"{name} {' and '.join(used[name])}" for name in names]
  when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
  return f"Seen on {when}{', with ' if named else ''}{', '.join(named)}."


def _input(records: Sequence[Record]) -> str:
  """Returns the section on hostile input: a row for each kind."""
  parts = [
    "## Input\n",
    "Files, arguments, configs and responses of servers that are damaged at random: each must be "
    "accepted or refused with the error that users get, one line of at most 2,000 printable "
    "characters (`make fuzz`). A finding is one that was neither, or that took too much time or "
    "memory. The last column counts the places in the code with findings before the fixes that "
    "followed.\n",
  ]
  if not records:
    return "\n".join([*parts, _EMPTY])
  rows = []
  for kind in dict.fromkeys(record["kind"] for record in records):
    of_kind = [record for record in records if record["kind"] == kind]
    now = [record for record in of_kind if not _is_earlier(record)]
    sums = [sum(record[name] for record in now) for name in _OF_INPUTS]
    places = {place for record in of_kind if _is_earlier(record) for place in record["distinct"]}
    counts = [f"{n:,}" for n in sums] if now else ["not measured since"] + [""] * 3
    rows.append((kind.replace("_", " "), *counts, str(len(places))))
  made = _made([record for record in records if not _is_earlier(record)])
  return "\n".join([*parts, _table(("", *_OF_INPUTS, "places before"), rows), "", made])


def _is_earlier(record: Record) -> bool:
  """Returns whether a record is of the code before fixes."""
  return str(record.get("note", "")).startswith("before fixes")


def _soak(records: Sequence[Record]) -> str:
  """Returns the section on long runs."""
  parts = [
    "## Long runs\n",
    "R14x0.5 on tiny images, resident and streamed (`make soak`). Memory in use is what the C "
    "library has allocated, Python's objects included, without its pools of freed blocks. Within "
    "the run Python collects unreachable objects every three seconds, which the times of steps "
    "include. The slope is Theil and Sen's estimate with its 95% interval, over the least of each "
    "fiftieth of the steps after the first third: until then pools fill, such as those of "
    "tensorstore's compression, of 3.7 MB each. `make soak` fails if the whole interval is above 1 "
    "MB per 1,000 steps. Some of it is tensorstore's, which never frees four small objects of each "
    "array that is saved (measured apart, with tensorstore alone). The memory of "
    "the process, in the figure and in the first and the last tenth, is without mapped files; it "
    "falls where the C library returns freed memory to the system. Open files, threads and "
    "compiled programs: the least in the second and in the last tenth. The least may not grow; the "
    "least number of threads in the last tenth may be up to the most in the second: pools fill "
    "late.\n",
  ]
  if not records:
    return "\n".join([*parts, _EMPTY])
  titles = ("", *(record["kind"] for record in records))
  figures = {
    "steps": lambda r: f"{r['steps']:,}",
    "evaluations, checkpoints": lambda r: f"{r['evaluations']}, {r['checkpoints']}",
    "CPU devices": lambda r: str(r["num_devices"]),
    "MB in use per 1,000 steps": lambda r: _slope(r["memory"]),
    "of it, kept by tensorstore": lambda r: f"{r['memory']['of_tensorstore']:.2f}",
    "MB of the process, first and last": lambda r: "{first_mb:,.0f}, {last_mb:,.0f}".format(
      **r["memory"]
    ),
    "open files": lambda r: _first_and_last(r["open_files"]),
    "threads": lambda r: _first_and_last(r["threads"]),
    "compiled programs": lambda r: _first_and_last(r["compilations"]),
    "compiled twice": lambda r: str(r["compiled_twice"]),
    "ms a step, median of first and last tenth": lambda r: "{first:.1f}, {last:.1f}".format(
      **r["step_ms"]
    ),
  }
  rows = [(name, *(show(record) for record in records)) for name, show in figures.items()]
  figure = f"![Memory of the runs against their steps](figures/{CURVE.name})"
  return "\n".join([*parts, _table(titles, rows), "", _made(records), "", figure])


def _slope(memory: Mapping[str, float]) -> str:
  return "{mb_per_1000_steps:.2f} ({low:.2f} to {high:.2f})".format(**memory)


def _first_and_last(counts: Mapping[str, int]) -> str:
  return f"{counts['first']}, then {counts['last']}"


def draw(records: Sequence[Record], picture: pathlib.Path) -> None:
  """Draws the memory of long runs against their steps."""
  with plots.figure(picture, (7, 3), dpi=120) as figure:
    axes = figure.subplots()
    for record, colour in zip(records, (plots.BLUE, plots.ORANGE), strict=False):
      axes.plot(*zip(*record["curve"], strict=True), color=colour, label=record["kind"])
    axes.set_xlabel("step")
    axes.set_ylabel("memory in MB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    plots.legend(axes, *axes.get_legend_handles_labels())


def _versions(records: Sequence[Record]) -> str:
  """Returns the section on versions of Python and libraries."""
  parts = [
    "## Versions\n",
    "Tests that are not slow, with the oldest direct dependencies that `pyproject.toml` allows "
    "(`make test-oldest`), and with the newest of all on a newer Python; `all` stands for the "
    "whole suite.\n",
  ]
  if not records:
    return "\n".join([*parts, _EMPTY])
  rows = [
    (
      record["kind"],
      record["python"],
      ", ".join(f"{n} {v}" for n, v in record["packages"].items() if n in _SHOWN_PACKAGES),
      record["tests"],
      *(f"{record[count]:,}" for count in ("passed", "failed", "skipped")),
    )
    for record in records
  ]
  titles = ("", "Python", "packages", "tests", "passed", "failed", "skipped")
  tested = phrases.counted(len(records), "environment")
  dates = sorted({record["date"] for record in records})
  return "\n".join([*parts, _table(titles, rows), "", f"{tested}, seen on {' and '.join(dates)}."])
