"""What runs are said to start from: one name for a checkpoint, and none for two."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from experiments.results import reading, vtab_means


def with_clear_names(found: Sequence[reading.Run]) -> list[reading.Run]:
  """Returns the runs with one name for each checkpoint of an architecture, and no name for two.

  Of several names that of a sweep is taken, else one that is no path, else the shortest. Where one
  sweep calls a checkpoint otherwise on other data, as when it has seen those very images, it has a
  name for each data set; VTAB-1k, whose tasks are averaged, counts as one.
  """
  by_sweeps = {run.label for run in found if run.label}
  by_network: dict[tuple[str, str], list[reading.Run]] = defaultdict(list)
  for run in found:
    by_network[_network(run)].append(run)
  names = {network: _names(members, by_sweeps) for network, members in by_network.items()}
  owners = Counter((network[0], name) for network in names for name in set(names[network].values()))

  def clear(run: reading.Run) -> str:
    name = names[_network(run)][vtab_means.subject(run)]
    if owners[run.architecture, name] == 1:
      return name
    return f"{name} ({run.checkpoint_sha256[:8] or 'no hash on record'})"

  return [dataclasses.replace(run, start=clear(run)) for run in found]


def _network(run: reading.Run) -> tuple[str, str]:
  """Returns the architecture, and what tells one initialisation of it from another."""
  if run.config["weights"] == "none":
    return run.architecture, "none"
  return run.architecture, run.checkpoint_sha256 or f"no hash: {run.config['weights']}"


def _names(found: Sequence[reading.Run], by_sweeps: set[str]) -> dict[str, str]:
  """Returns the name of one network in the runs on each subject (`vtab_means.subject`).

  Args:
    found: The network's runs.
    by_sweeps: The names that sweeps have for any network.
  """
  starts = {run.start for run in found}
  usual = min(starts & by_sweeps or starts, key=_length)
  of_each_sweep = [
    _labels(r for r in found if r.sweep == sweep) for sweep in {r.sweep for r in found}
  ]
  told_apart = any(len(set(labels.values())) > 1 for labels in of_each_sweep)
  own = _labels(found) if told_apart else {}
  return {subject: own.get(subject, usual) for subject in map(vtab_means.subject, found)}


def _labels(found: Iterable[reading.Run]) -> dict[str, str]:
  """Returns what sweeps call a network in the runs on each subject, of those where they do."""
  labels: dict[str, set[str]] = defaultdict(set)
  for run in found:
    if run.label:
      labels[vtab_means.subject(run)].add(run.label)
  return {subject: min(names, key=_length) for subject, names in labels.items()}


def _length(name: str) -> tuple[bool, int, str]:
  """Sorts names: those that are no path first, then the shortest."""
  return "/" in name, len(name), name
