"""All runs below a folder, each counted once, with unambiguous names; and the folders left out."""

import dataclasses
import functools
import json
import pathlib
from collections import Counter
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
  names = ("duplicates", "failed", "unfinished", "remarks")
  lists: dict[str, list[tuple[str, str]]] = {"left_out": left_out, **{name: [] for name in names}}
  counted = []
  find_spec = functools.cache(reading.find_spec)
  for folder in found:
    try:
      outcome, text = reading.outcome(folder)
      if outcome != "finished":
        lists[outcome].append((folder.name, text))
        continue
      counted.append(reading.read(folder, find_spec))
      lists["remarks"] += [(folder.name, f"{name} {why}") for name, why in folder.faults.items()]
      if run_folder.ENVIRONMENT not in {*folder.contents, *folder.faults}:
        lists["remarks"].append((folder.name, "environment.json is missing: device unknown"))
    except reading.LeftOutError as e:
      lists["left_out"].append((folder.name, str(e)))
    except (TypeError, ValueError, AttributeError) as e:
      reason = f"a value of another type than in any run ({errors.reason(e)})"
      lists["left_out"].append((folder.name, reason))
  # Of several runs with the same settings and seed, the one that began first counts.
  ordered = sorted(_with_clear_names(counted), key=_order)
  groups = folders.grouped((_setting(run), run) for run in ordered).values()
  lists["duplicates"] = [(one.name, _repeats(of[0], one)) for of in groups for one in of[1:]]
  listed = {name: tuple(sorted(pairs)) for name, pairs in lists.items()}
  return Collection(tuple(of[0] for of in groups), **listed)


def table(found: Iterable[reading.Run]) -> pd.DataFrame:
  """Returns `results.csv`: a row per run and metric, unknown values empty.

  All metrics but the loss are in [0, 1]; 'shots' is 'full' where all examples are used.
  """
  records = []
  for run in found:
    values = {
      **run.config,
      **vars(run),
      **vars(run.recipe),
      "run": run.name,
      "shots": "full" if run.shots == reading.ALL else run.shots,
      "device": reading.THEN.join(run.devices),
      "machine": reading.THEN.join(run.machines),
      "warnings": " | ".join(run.warnings),
    }
    records += [{**values, "metric": name, "value": of} for name, of in run.metrics.items()]
  return pd.DataFrame(records, columns=HEADER, dtype=object)


def _setting(run: reading.Run) -> tuple[Any, ...]:
  """Returns what a run is of: runs with the same settings and seed repeat each other."""
  recipe = (run.recipe.departures, run.recipe.preset, run.recipe.dtype or "")
  return (run.dataset, run.protocol, run.shots, run.network, *recipe, run.seed)


def _order(run: reading.Run) -> tuple[Any, ...]:
  """Sorts runs by what they are, and only then by the names of their folders."""
  result = (run.started, run.config_hash, json.dumps(run.metrics, sort_keys=True))
  return (*_setting(run), *result, run.name)


def _repeats(first: reading.Run, other: reading.Run) -> str:
  a, b = 100 * first.metrics["top1"], 100 * other.metrics["top1"]
  values = f"both have {a:.2f}%" if a == b else f"they disagree: {a:.2f}% counts, not {b:.2f}%"
  return f"same settings and seed {other.seed} as {first.name}, which counts; {values}"


def _with_clear_names(found: Sequence[reading.Run]) -> list[reading.Run]:
  """Returns the runs with one name per initial checkpoint of an architecture, and no name twice.

  Names given by a sweep come first, then names that are no path, then the shortest. Where one sweep
  has several names for a checkpoint, as when it was pre-trained on the very data of some of the
  runs, it gets a name per data set (per `Run.subject`).
  """
  by_sweeps = {run.label for run in found if run.label}
  names: dict[tuple[tuple[str, str], str], str] = {}  # of a network on a subject
  for network, members in folders.grouped((_network(run), run) for run in found).items():
    starts = {run.start for run in members}
    usual = min(starts & by_sweeps or starts, key=_preference)
    labelled = [run for run in members if run.label]
    by_sweep = _preferred(((run.sweep, run.subject), run.label) for run in labelled)
    per_sweep = Counter(sweep for sweep, _ in {(of[0], name) for of, name in by_sweep.items()})
    own = _preferred((run.subject, run.label) for run in labelled if max(per_sweep.values()) > 1)
    names |= {(network, run.subject): own.get(run.subject, usual) for run in members}
  owners = Counter((of[0], name) for of, name in {(of, name) for (of, _), name in names.items()})
  result = []
  for run in found:
    name = names[_network(run), run.subject]
    if owners[run.architecture, name] > 1:
      name = f"{name} ({run.checkpoint_sha256[:8] or 'no hash recorded'})"
    result.append(dataclasses.replace(run, start=name))
  return result


def _network(run: reading.Run) -> tuple[str, str]:
  """Returns the architecture, and what distinguishes its initial weights from others."""
  checkpoint = run.checkpoint_sha256 or f"no hash: {run.config['weights']}"
  return run.architecture, "none" if run.config["weights"] == "none" else checkpoint


def _preferred(named: Iterable[tuple[Any, str]]) -> dict[Any, str]:
  return {key: min(names, key=_preference) for key, names in folders.grouped(named).items()}


def _preference(name: str) -> tuple[bool, int, str]:
  return "/" in name, len(name), name
