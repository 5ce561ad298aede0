"""All folders together: runs that can be compared, each counted once, and a list of the rest."""

import dataclasses
import json
import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bit_jax.runs import run_folder
from experiments.results import folders, naming, reading


@dataclasses.dataclass(frozen=True)
class Collection:
  """All that was found.

  Attributes:
    runs: The runs that count, in an order that doesn't depend on their folders' names.
    left_out: (folder, reason), sorted.
    duplicates: (folder, what it repeats).
    failed: (folder, error).
    unfinished: (folder, how far it came).
    remarks: (folder, what is missing from it although it counts).
  """

  runs: tuple[reading.Run, ...]
  left_out: tuple[tuple[str, str], ...]
  duplicates: tuple[tuple[str, str], ...]
  failed: tuple[tuple[str, str], ...]
  unfinished: tuple[tuple[str, str], ...]
  remarks: tuple[tuple[str, str], ...]


def collect(root: pathlib.Path) -> Collection:
  """Reads all run folders at and below `root`.

  Raises:
    UserError: There is no such folder.
  """
  found, left_out = folders.find(root)
  lists: dict[str, list[tuple[str, str]]] = defaultdict(list, left_out=left_out)
  counted = []
  find_spec = reading.spec_finder()
  for folder in found:
    try:
      outcome, text = reading.outcome(folder)
      if outcome == "finished":
        counted.append(reading.read(folder, find_spec))
        lists["remarks"] += _remarks(folder)
      else:
        lists[outcome].append((folder.name, text))
    except reading.LeftOutError as e:
      lists["left_out"].append((folder.name, str(e)))
  unique, lists["duplicates"] = _without_duplicates(naming.with_clear_names(counted))
  names = ("left_out", "duplicates", "failed", "unfinished", "remarks")
  return Collection(tuple(unique), **{name: tuple(sorted(lists[name])) for name in names})


def _remarks(folder: folders.Folder) -> list[tuple[str, str]]:
  """Returns what a run that counts lacks."""
  remarks = [(folder.name, f"{name} {why}") for name, why in folder.faults.items()]
  if run_folder.ENVIRONMENT not in {*folder.contents, *folder.faults}:
    remarks.append((folder.name, "environment.json is missing: its device isn't on record"))
  return remarks


def _without_duplicates(
  found: Iterable[reading.Run],
) -> tuple[list[reading.Run], list[tuple[str, str]]]:
  """Returns the first of the runs with the same settings and seed, and a note on each other one.

  The first is the one that began first.
  """
  groups: dict[tuple[Any, ...], list[reading.Run]] = defaultdict(list)
  for run in sorted(found, key=_order):
    groups[(*run.cell, run.recipe, run.seed)].append(run)
  notes = [
    (other.name, _repeats(first, other)) for first, *rest in groups.values() for other in rest
  ]
  return [group[0] for group in groups.values()], notes


def _order(run: reading.Run) -> tuple[Any, ...]:
  """Sorts runs by what they are, and only then by the names of their folders."""
  dataset, protocol, shots, network = run.cell
  cell = (dataset, protocol, math.inf if shots is None else shots, network)
  recipe = (run.recipe.departures, run.recipe.preset, run.recipe.dtype or "")
  result = (run.started, run.config_hash, json.dumps(run.metrics, sort_keys=True))
  return (*cell, *recipe, run.seed, *result, run.name)


def _repeats(first: reading.Run, other: reading.Run) -> str:
  a, b = 100 * first.metrics["top1"], 100 * other.metrics["top1"]
  values = f"both have {a:.2f} %" if a == b else f"they disagree: {a:.2f} % counts, not {b:.2f} %"
  same = "the same config" if first.config_hash == other.config_hash else "the same settings"
  why = "which began first and counts" if first.started < other.started else "which counts"
  return f"{same} and seed {other.seed} as {first.name}, {why}; {values}"
