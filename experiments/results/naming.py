"""What runs are said to start from: one name for a checkpoint, and none for two."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from experiments.results import groups, reading


def with_clear_names(found: Sequence[reading.Run]) -> list[reading.Run]:
  """Returns the runs with one name for each checkpoint of an architecture, and no name for two.

  Of several names that of a sweep is taken, else one that is no path, else the shortest. Where one
  sweep calls a checkpoint otherwise on other data, as when it has seen those very images, it has a
  name for each data set; VTAB-1k, whose tasks are averaged, counts as one.
  """
  preference = _preference({run.label for run in found if run.label})
  by_network: dict[tuple[str, str], list[reading.Run]] = defaultdict(list)
  for run in found:
    by_network[run.architecture, _checkpoint(run)].append(run)
  names = {network: _names(members, preference) for network, members in by_network.items()}
  number = Counter(
    (architecture, name)
    for (architecture, _), of_subjects in names.items()
    for name in set(of_subjects.values())
  )

  def clear(run: reading.Run) -> str:
    name = names[run.architecture, _checkpoint(run)][groups.subject(run)]
    if number[run.architecture, name] == 1:
      return name
    return f"{name} ({run.checkpoint_sha256[:8] or 'no hash on record'})"

  return [dataclasses.replace(run, start=clear(run)) for run in found]


def _preference(labels: set[str]) -> Callable[[str], tuple[bool, bool, int, str]]:
  """Returns what names are sorted by, given those that sweeps gave."""
  return lambda name: (name not in labels, "/" in name, len(name), name)


def _checkpoint(run: reading.Run) -> str:
  """Returns what tells one initialisation from another: a hash, or what stands for it."""
  if run.config["weights"] == "none":
    return "none"
  return run.checkpoint_sha256 or f"no hash: {run.config['weights']}"


def _names(
  found: Iterable[reading.Run], preference: Callable[[str], tuple[bool, bool, int, str]]
) -> dict[str, str]:
  """Returns the name of one network in the runs on each subject (`groups.subject`)."""
  starts: set[str] = set()
  given: dict[str, set[str]] = {}
  by_sweep: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
  for run in found:
    subject = groups.subject(run)
    starts.add(run.start)
    given.setdefault(subject, set())
    if run.label:
      given[subject].add(run.label)
      by_sweep[run.sweep][subject].add(run.label)
  usual = min(starts, key=preference)
  told_apart = any(
    len({min(labels, key=preference) for labels in by_subject.values()}) > 1
    for by_subject in by_sweep.values()
  )
  return {
    subject: min(labels, key=preference) if labels and told_apart else usual
    for subject, labels in given.items()
  }
