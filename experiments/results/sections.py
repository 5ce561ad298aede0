"""The report: its sections, each where there are runs for it, and the figures that they show."""

import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from bit_jax.runtime import clock, phrases
from experiments.results import (
  accuracy_sections,
  collect,
  curves,
  effort,
  effort_tables,
  galleries,
  pages,
  reading,
  recipe_comparisons,
  seeds,
  verdict_tables,
  vtab_means,
  wording,
)

_INTERVALS = (
  "Accuracies are top-1 in %: the median of the seeds, the lowest and the highest in brackets, and "
  "how many seeds; with six or more also a 95 % bootstrap interval of the median, where that is "
  "narrower."
)
_RULE = (
  "The rule is BiT-HyperRule (bit_jax/hyperrule.py). A preset is a reading of it: code as the "
  "released code has it, paper as the paper's text, readme_128 as the README's runs on CIFAR, "
  "scaled with as many images whatever the batch. A recipe is told by its preset and by what "
  "differs from it."
)


def report(found: collect.Collection, given: str, folder: pathlib.Path) -> list[pages.Block]:
  """Returns the whole report, and draws its figures.

  Args:
    found: The runs.
    given: The folder that they lie in, as the command had it.
    folder: Where the figures go.
  """
  counted, gallery = found.runs, galleries.Gallery(folder)
  comparisons = recipe_comparisons.comparisons(counted)
  panels = curves.panels(counted)
  scores = vtab_means.scores(counted)
  blocks: list[pages.Block] = [pages.Heading(1, "Results"), *_introduction(found, given)]
  blocks += accuracy_sections.few_shot(panels, gallery)
  blocks += accuracy_sections.vtab_scores(scores, gallery)
  blocks += accuracy_sections.sizes(counted, gallery)
  blocks += accuracy_sections.comparisons(comparisons, gallery)
  blocks += _others(counted, panels, comparisons)
  blocks += verdict_tables.against_published(counted, scores)
  blocks += effort_tables.efforts(effort.efforts(counted))
  blocks += effort_tables.startups(effort.startups(counted))
  return [*blocks, *_remaining(found)]


def _introduction(found: collect.Collection, given: str) -> Iterator[pages.Block]:
  others = (
    (found.failed, f"{len(found.failed):,} failed"),
    (found.unfinished, f"{len(found.unfinished):,} unfinished"),
    (found.duplicates, phrases.counted(len(found.duplicates), "duplicate")),
    (found.left_out, f"{len(found.left_out):,} left out"),
  )
  listed = [text for there, text in others if there]
  remaining = f"; {', '.join(listed)}, all listed below" if listed else ""
  yield pages.Paragraph(
    f"{phrases.counted(len(found.runs), 'finished run')}{remaining}. Made from the run folders by "
    f"python -m experiments.report {given}; every number of every run is in results.csv."
  )
  if found.runs:
    yield pages.Paragraph(f"{_INTERVALS}{_time(found.runs)}")
    yield pages.Paragraph(_RULE)


def _time(found: Sequence[reading.Run]) -> str:
  """Returns a sentence on how long runs took, of those that a sweep timed."""
  timed = [run.wall_seconds for run in found if run.wall_seconds is not None]
  if not timed:
    return ""
  took = clock.format_seconds(sum(timed))
  return f" {phrases.counted(len(timed), 'run')} took {took} in all, from start to end."


def _others(
  found: Iterable[reading.Run],
  panels: Iterable[curves.Panel],
  comparisons: Iterable[recipe_comparisons.Comparison],
) -> Iterator[pages.Block]:
  """Yields a table of the runs that no other section shows."""
  shown = {id(run) for panel in panels for run in panel.runs}
  shown |= {id(run) for one in comparisons for run in one.runs}
  rest = [run for run in found if id(run) not in shown and not vtab_means.is_vtab(run)]
  if not rest:
    return
  yield pages.Heading(2, "Other runs")
  rows = [
    (
      wording.dataset(dataset, protocol),
      wording.shots(shots),
      network,
      wording.recipe(point.runs),
      wording.summary(point.top1),
    )
    for (dataset, protocol, shots, network, _), point in seeds.points(
      rest, lambda run: (*run.cell, run.recipe)
    ).items()
  ]
  yield pages.Paragraph(wording.run_on(rest))
  yield pages.Table(("data set", "examples", "network", "recipe", "top-1"), rows, names=4)


def _remaining(found: collect.Collection) -> Iterator[pages.Block]:
  warned: dict[str, list[str]] = defaultdict(list)
  for run in found.runs:
    for warning in run.warnings:
      warned[warning].append(run.name)
  versions: dict[str, set[str]] = defaultdict(set)
  for run in found.runs:
    if run.data:
      versions[run.dataset].add(run.data)
  mixed = [
    f"{name} was read as {', '.join(sorted(v))}" for name, v in versions.items() if len(v) > 1
  ]
  lists = {
    "Failed": _listed(found.failed),
    "Unfinished": _listed(found.unfinished),
    "Counted once": _listed(found.duplicates),
    "Left out": _listed(found.left_out),
    "Counted, though something is missing": _listed(found.remarks),
    "Several versions of a data set": mixed,
    "Warnings": [f"{text} ({_among(names)})" for text, names in warned.items()],
  }
  if any(lists.values()):
    yield pages.Heading(2, "What else there is")
  for title, items in lists.items():
    if items:
      yield pages.Heading(3, title)
      yield pages.Bullets(items)


def _listed(pairs: Iterable[tuple[str, str]]) -> list[str]:
  """Returns a line for each text, with all the names that it is said of."""
  names: dict[str, list[str]] = defaultdict(list)
  for name, text in pairs:
    names[text].append(name)
  return [f"{', '.join(of)}: {text}" for text, of in names.items()]


def _among(names: Sequence[str]) -> str:
  return names[0] if len(names) == 1 else f"{len(names)} runs, the first {names[0]}"
