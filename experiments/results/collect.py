"""All runs below a folder, each counted once, with unambiguous names; and the folders left out."""

import dataclasses
import functools
import json
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from experiments.results import folders, reading

HEADER = (  # of results.csv
  *("run", "sweep", "model", "start", "dataset", "protocol", "regime", "shots", "seed"),
  *("preset", "rule", "reason", "batch_size", "resize", "crop", "test_size", "steps", "base_lr"),
  *("mixup_alpha", "random_crop", "random_flip", "dtype", "num_train", "num_test"),
  *("metric", "value", "wall_seconds", "startup_seconds", "step_seconds", "images_per_second"),
  *("device", "num_devices", "machine", "data", "checkpoint_sha256", "config_hash", "started"),
  "warnings",
)


@dataclasses.dataclass(frozen=True)
class Collection:
  """Everything found below a folder.

  Attributes:
    runs: The runs that count, in an order that doesn't depend on their folders' names.
    left_out: (folder, reason), sorted.
    duplicates: (folder, what it repeats).
    failed: (folder, error).
    unfinished: (folder, progress).
    remarks: (folder, what is missing in it although it counts).
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
    UserError: `root` is not a folder.
  """
  found, left_out = folders.find(root)
  lists: dict[str, list[tuple[str, str]]] = defaultdict(list, left_out=left_out)
  counted = []
  find_spec = functools.cache(reading.find_spec)
  for folder in found:
    try:
      outcome, text = reading.outcome(folder)
      if outcome == "finished":
        counted.append(reading.read(folder, find_spec))
        lists["remarks"] += [(folder.name, f"{name} {why}") for name, why in folder.faults.items()]
        if run_folder.ENVIRONMENT not in {*folder.contents, *folder.faults}:
          lists["remarks"].append((folder.name, "environment.json is missing: device unknown"))
      else:
        lists[outcome].append((folder.name, text))
    except reading.LeftOutError as e:
      lists["left_out"].append((folder.name, str(e)))
    except (TypeError, ValueError, AttributeError) as e:
      reason = f"a value of another type than in any run ({errors.reason(e)})"
      lists["left_out"].append((folder.name, reason))
  unique, lists["duplicates"] = _without_duplicates(_with_clear_names(counted))
  names = ("left_out", "duplicates", "failed", "unfinished", "remarks")
  return Collection(tuple(unique), **{name: tuple(sorted(lists[name])) for name in names})


def table(found: Iterable[reading.Run]) -> pd.DataFrame:
  """Returns `results.csv`: a row per run and metric, unknown values empty.

  All metrics but the loss are in [0, 1]; 'shots' is 'full' where all examples are used.
  """
  records = []
  for run in found:
    values = {
      **run.config,
      **vars(run),
      "run": run.name,
      "shots": "full" if run.shots == reading.ALL else run.shots,
      "preset": run.recipe.preset,
      "dtype": run.recipe.dtype,
      "device": reading.THEN.join(run.devices),
      "machine": reading.THEN.join(run.machines),
      "warnings": " | ".join(run.warnings),
    }
    for metric, value in run.metrics.items():
      row = {**values, "metric": metric, "value": value}
      records.append([row[name] for name in HEADER])
  return pd.DataFrame(records, columns=HEADER, dtype=object)


def _without_duplicates(
  found: Iterable[reading.Run],
) -> tuple[list[reading.Run], list[tuple[str, str]]]:
  """Returns the first of the runs with the same settings and seed, and a note on each other one.

  The first is the one that began first.
  """
  groups: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in sorted(found, key=_order):
    cell = (run.dataset, run.protocol, run.shots, run.network)
    groups[(*cell, run.recipe, run.seed)].append(run)
  notes = [
    (other.name, _repeats(first, other)) for first, *rest in groups.values() for other in rest
  ]
  return [first for first, *_ in groups.values()], notes


def _order(run: reading.Run) -> tuple[Any, ...]:
  """Sorts runs by what they are, and only then by the names of their folders."""
  cell = (run.dataset, run.protocol, run.shots, run.network)
  recipe = (run.recipe.departures, run.recipe.preset, run.recipe.dtype or "")
  result = (run.started, run.config_hash, json.dumps(run.metrics, sort_keys=True))
  return (*cell, *recipe, run.seed, *result, run.name)


def _repeats(first: reading.Run, other: reading.Run) -> str:
  a, b = 100 * first.metrics["top1"], 100 * other.metrics["top1"]
  values = f"both have {a:.2f} %" if a == b else f"they disagree: {a:.2f} % counts, not {b:.2f} %"
  same = "config" if first.config_hash == other.config_hash else "settings"
  why = "which began first and counts" if first.started < other.started else "which counts"
  return f"same {same} and seed {other.seed} as {first.name}, {why}; {values}"


def _with_clear_names(found: Sequence[reading.Run]) -> list[reading.Run]:
  """Returns the runs with one name per initial checkpoint of an architecture, and no name twice.

  Names given by a sweep come first, then names that are no path, then the shortest. Where one sweep
  has several names for a checkpoint, as when it was pre-trained on the very data of some of the
  runs, it gets a name per data set (per `Run.subject`).
  """
  by_sweeps = {run.label for run in found if run.label}
  by_network: dict[tuple[str, str], list[reading.Run]] = defaultdict(list)
  for run in found:
    by_network[_network(run)].append(run)
  names = {network: _names(members, by_sweeps) for network, members in by_network.items()}
  owners = Counter((network[0], name) for network in names for name in set(names[network].values()))

  def clear(run: reading.Run) -> str:
    name = names[_network(run)][run.subject]
    if owners[run.architecture, name] == 1:
      return name
    return f"{name} ({run.checkpoint_sha256[:8] or 'no hash recorded'})"

  return [dataclasses.replace(run, start=clear(run)) for run in found]


def _network(run: reading.Run) -> tuple[str, str]:
  """Returns the architecture, and what distinguishes its initial weights from others."""
  if run.config["weights"] == "none":
    return run.architecture, "none"
  return run.architecture, run.checkpoint_sha256 or f"no hash: {run.config['weights']}"


def _names(found: Sequence[reading.Run], by_sweeps: set[str]) -> dict[str, str]:
  """Returns the name of one network in its runs on each subject.

  Args:
    found: The network's runs.
    by_sweeps: The names that sweeps give to any network.
  """
  starts = {run.start for run in found}
  usual = min(starts & by_sweeps or starts, key=_preference)
  by_sweep = [_labels(run for run in found if run.sweep == s) for s in {run.sweep for run in found}]
  own = _labels(found) if any(len(set(labels.values())) > 1 for labels in by_sweep) else {}
  return {run.subject: own.get(run.subject, usual) for run in found}


def _labels(found: Iterable[reading.Run]) -> dict[str, str]:
  """Returns the sweeps' preferred name for a network on each subject where they have one."""
  labels: dict[str, set[str]] = defaultdict(set)
  for run in found:
    if run.label:
      labels[run.subject].add(run.label)
  return {subject: min(names, key=_preference) for subject, names in labels.items()}


def _preference(name: str) -> tuple[bool, int, str]:
  return "/" in name, len(name), name
