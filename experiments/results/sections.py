"""The report: its sections, each where there are runs for it, and the figures that they show."""

import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bit_jax import architectures, reporting
from bit_jax.data import vtab
from experiments.results import (
  collect,
  effort,
  figures,
  groups,
  intervals,
  pages,
  reading,
  recipes,
  verdicts,
)

_INTERVALS = (
  "Accuracies are top-1 in %: the median of the seeds, the lowest and the highest in brackets, and "
  "how many seeds; with six or more also a 95 % bootstrap interval of the median, where that is "
  "narrower."
)
_PARTIAL = "A mean over fewer tasks than all is no score, and is compared with nothing."


class _Gallery:
  """Gives out the paths of a report's figures, none of them twice."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._given: Counter[str] = Counter()

  def path(self, *parts: str) -> pathlib.Path:
    """Returns the path of a figure that `parts` tell of."""
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")[:80]
    self._given[name] += 1
    number = self._given[name]
    return self._folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")


def report(found: collect.Collection, name: str, folder: pathlib.Path) -> list[pages.Block]:
  """Returns the whole report, and draws its figures.

  Args:
    found: The runs.
    name: Of the folder that they lie in.
    folder: Where the figures go.
  """
  counted, gallery = found.runs, _Gallery(folder)
  comparisons = groups.comparisons(counted)
  panels = groups.panels(counted)
  scores = groups.scores(counted)
  blocks: list[pages.Block] = [pages.Heading(1, "Results"), *_introduction(found, name)]
  blocks += _few_shot(panels, gallery)
  blocks += _vtab(scores, gallery)
  blocks += _sizes(counted, gallery)
  blocks += _comparisons(comparisons, gallery)
  blocks += _others(counted, panels, comparisons)
  blocks += _published(counted, scores)
  blocks += _efforts(effort.efforts(counted))
  blocks += _startups(effort.startups(counted))
  return [*blocks, *_remaining(found)]


def _introduction(found: collect.Collection, name: str) -> Iterator[pages.Block]:
  others = {
    "failed": found.failed,
    "unfinished": found.unfinished,
    "counted once although there twice": found.duplicates,
    "left out": found.left_out,
  }
  listed = [f"{len(there)} {what}" for what, there in others.items() if there]
  remaining = f"; {', '.join(listed)}, all listed below" if listed else ""
  yield pages.Paragraph(
    f"{_number(len(found.runs), 'finished run')}{remaining}. Made from the run folders by "
    f"python -m experiments.report {name}; every number of every run is in results.csv."
  )
  if found.runs:
    yield pages.Paragraph(f"{_INTERVALS}{_time(found.runs)}")


def _time(found: Sequence[reading.Run]) -> str:
  """Returns a sentence on how long runs took, of those that a sweep timed."""
  timed = [run.wall_seconds for run in found if run.wall_seconds is not None]
  if not timed:
    return ""
  took = reporting.format_seconds(sum(timed))
  return f" {_number(len(timed), 'run')} took {took} in all, from start to end."


def _few_shot(panels: Sequence[groups.Panel], gallery: _Gallery) -> Iterator[pages.Block]:
  if not panels:
    return
  yield pages.Heading(2, "Accuracy against examples of each class")
  by_recipe: dict[Any, list[groups.Panel]] = defaultdict(list)
  for panel in panels:
    by_recipe[panel.recipe, panel.protocol].append(panel)
  for (recipe, protocol), there in by_recipe.items():
    found = [r for p in there for points in p.series.values() for one in points for r in one.runs]
    title = _title("Accuracy against examples of each class", found, recipe)
    names = "-".join(sorted({p.dataset for p in there}))
    picture = gallery.path("fewshot", names, protocol)
    figures.few_shot(there, title, picture)
    yield pages.Paragraph(_made(found, recipe))
    yield pages.Picture(picture.name, _described(title, "a dot a seed, the line their median"))
    yield _few_shot_table(there)


def _few_shot_table(panels: Sequence[groups.Panel]) -> pages.Table:
  columns: dict[int | None, None] = {}
  for panel in panels:
    for points in panel.series.values():
      columns |= dict.fromkeys(one.runs[0].shots for one in points)
  ordered = sorted(columns, key=lambda shots: (shots is None, shots))
  rows = []
  for panel in panels:
    for network, points in panel.series.items():
      by_shots = {one.runs[0].shots: _summary(one.top1) for one in points}
      cells = [by_shots.get(shots, "") for shots in ordered]
      rows.append((_set(panel.dataset, panel.protocol), network, *cells))
  return pages.Table(("data set", "network", *map(_shots, ordered)), rows, names=2)


def _vtab(scores: Sequence[groups.Score], gallery: _Gallery) -> Iterator[pages.Block]:
  if not scores:
    return
  yield pages.Heading(2, "VTAB-1k")
  by_recipe: dict[Any, list[groups.Score]] = defaultdict(list)
  for score in scores:
    by_recipe[score.recipe, score.protocol].append(score)
  for (recipe, protocol), there in by_recipe.items():
    found = [r for score in there for one in score.tasks.values() for r in one.runs]
    done = {len(score.tasks) for score in there}
    title = _title(f"VTAB-1k, {_range(done)} of {len(vtab.TASKS)} tasks", found, recipe)
    picture = gallery.path("vtab", protocol)
    figures.vtab(there, title, picture)
    yield pages.Paragraph(_made(found, recipe))
    marks = "bars are medians, whiskers go from the lowest to the highest seed"
    yield pages.Picture(picture.name, _described(title, marks))
    yield pages.Paragraph("Means of the tasks' medians; over all 19 tasks it is the score:")
    yield _vtab_means(there)
    if any(not score.means["all"].is_complete for score in there):
      yield pages.Paragraph(_PARTIAL)
    yield _vtab_tasks(there)


def _vtab_means(scores: Sequence[groups.Score]) -> pages.Table:
  kinds = (*groups.GROUPS, "all")
  header = ("network", *groups.GROUPS, "all", "of single seeds")
  rows = []
  for score in scores:
    seeds = score.means["all"].seeds
    single = f"{min(seeds):.1f} to {max(seeds):.1f}, {len(seeds)} seeds" if len(seeds) > 1 else ""
    rows.append((score.network, *(_mean(score.means[k]) for k in kinds), single))
  return pages.Table(header, rows)


def _mean(mean: groups.Mean) -> str:
  value = "none" if mean.value is None else f"{mean.value:.1f}"
  return f"{value} ({mean.done} of {mean.of})"


def _vtab_tasks(scores: Sequence[groups.Score]) -> pages.Table:
  rows = []
  for group, tasks in groups.GROUPS.items():
    for task in tasks:
      cells = [_summary(s.tasks[task].top1) if task in s.tasks else "" for s in scores]
      if any(cells):
        rows.append((task, group, *cells))
  return pages.Table(("task", "group", *(s.network for s in scores)), rows, names=2)


def _sizes(found: Sequence[reading.Run], gallery: _Gallery) -> Iterator[pages.Block]:
  known = {run.architecture for run in found} & set(architectures.ARCHITECTURES)
  if len(known) < 2:
    return
  several = [one for one in groups.sizes(found) if any(len(s) > 1 for s in one.series.values())]
  yield pages.Heading(2, "Accuracy against size and cost")
  if not several:
    yield pages.Paragraph(
      f"Of {', '.join(sorted(known))}, no two were run on one data set (or on all of VTAB-1k) by "
      f"one recipe, from one kind of start and on one device: there is nothing to compare."
    )
  for one in several:
    what = f"{_set(one.dataset, one.protocol)}, {one.start}"
    title = _title(f"Accuracy against size and cost: {what}", one.runs, one.recipe)
    picture = gallery.path("sizes", one.dataset, one.protocol, one.start)
    runs = f"{len(vtab.TASKS)} tasks' runs" if one.dataset == groups.VTAB else "a run"
    cost = f"time of the steps of {runs} on {_devices(one.runs)}"
    figures.sizes(one, cost, title, picture)
    yield pages.Paragraph(_made(one.runs, one.recipe))
    yield pages.Picture(picture.name, _described(title))
    header = ("network", "examples", "parameters in millions, without head", "top-1")
    rows = [
      (size.architecture, _shots(shots) if one.dataset != groups.VTAB else "", *_size(size))
      for shots, there in one.series.items()
      for size in there
    ]
    yield pages.Table((*header, f"{cost}, in s"), rows, names=2)


def _size(size: groups.Size) -> tuple[str, ...]:
  count = _number(size.count, "seed")
  spread = f" ({size.low:.1f} to {size.high:.1f})" if size.count > 1 else ""
  accuracy = f"{size.value:.1f}{spread}, {count}"
  return f"{size.parameters / 1e6:,.1f}", accuracy, f"{size.seconds:,.0f}"


def _comparisons(
  comparisons: Sequence[groups.Comparison], gallery: _Gallery
) -> Iterator[pages.Block]:
  if not comparisons:
    return
  yield pages.Heading(2, "Recipes compared")
  for one in comparisons:
    what = f"{_set(one.dataset, one.protocol)}, {_shots(one.shots)}, {one.network}"
    found = [run for _, point in one.rows for run in point.runs]
    first = one.rows[0][1]
    title = _title(what, first.runs, first.runs[0].recipe)
    picture = gallery.path("recipes", one.dataset, one.protocol, _shots(one.shots), one.network)
    figures.comparison(one, title, picture)
    yield pages.Heading(3, what)
    yield pages.Paragraph(f"{_run_on(found)} The reference: {_recipe(first.runs)}.")
    yield pages.Picture(picture.name, _described(title))
    rows = []
    for values, point in one.rows:
      difference = point.top1.median - first.top1.median
      shown = "reference" if point is first else f"{difference:+.1f}"
      rows.append((*map(figures.shown, values), _summary(point.top1), shown))
    header = (*one.fields, "top-1", "difference")
    yield pages.Table(header, rows, names=len(one.fields))


def _others(
  found: Iterable[reading.Run],
  panels: Iterable[groups.Panel],
  comparisons: Iterable[groups.Comparison],
) -> Iterator[pages.Block]:
  """Yields a table of the runs that no other section shows."""
  shown = {r.name for p in panels for points in p.series.values() for q in points for r in q.runs}
  shown |= {run.name for c in comparisons for _, point in c.rows for run in point.runs}
  rest = [run for run in found if run.name not in shown and not groups.is_vtab(run)]
  if not rest:
    return
  yield pages.Heading(2, "Other runs")
  rows = [
    (_set(dataset, protocol), _shots(shots), network, _recipe(point.runs), _summary(point.top1))
    for (dataset, protocol, shots, network, _), point in groups.points(
      rest, lambda run: (*run.cell, run.recipe)
    ).items()
  ]
  yield pages.Paragraph(_run_on(rest))
  yield pages.Table(("data set", "examples", "network", "recipe", "top-1"), rows, names=4)


def _published(
  found: Sequence[reading.Run], scores: Sequence[groups.Score]
) -> Iterator[pages.Block]:
  if not found:
    return
  yield pages.Heading(2, "Against published values")
  compared = verdicts.compare(verdicts.read(), found, scores)
  if missing := verdicts.unmatched(found, compared):
    yield pages.Paragraph(f"Nothing to compare with was published for {'; '.join(missing)}.")
  if not compared:
    return
  yield pages.Paragraph(
    "Only what is like with like gets a verdict. Released checkpoints are known by their names; no "
    "hash of them was published that this could check, and results.csv has those of the files used."
  )
  if any("CIFAR" in c.row.source and c.row.shots is None for c in compared):
    yield pages.Paragraph(
      "On the full CIFAR sets the README's runs trained on 49,000 of the 50,000 images; those in "
      "JAX scored 9,984 of the 10,000 test images."
    )
  by_source: dict[str, list[verdicts.Comparison]] = defaultdict(list)
  for one in compared:
    by_source[f"{one.row.source}; {one.row.citation}"].append(one)
  notes: dict[tuple[str, ...], int] = {}
  header = ("data set", "examples", "network", "published", "ours", "verdict")
  for source, there in by_source.items():
    metrics = dict.fromkeys(one.row.description for one in there)
    yield pages.Paragraph(f"Source: {source}; {'; '.join(metrics)}.")
    rows = []
    for one in there:
      number = notes.setdefault(one.differences, len(notes) + 1) if one.differences else 0
      verdict = one.verdict or f"none, not like with like: note {number}"
      rows.append((*_names(one.row), _theirs(one.row), _ours(one), verdict))
    yield pages.Table(header, rows, names=len(header))
  if notes:
    yield pages.Bullets([f"Note {n}: {'; '.join(reasons)}." for reasons, n in notes.items()])


def _names(row: verdicts.Row) -> tuple[str, str, str]:
  metric = "" if row.metric == "top1" else f", {row.metric}"
  examples = "1000" if row.vtab_group else _shots(row.shots)
  return f"{row.dataset}{metric}", examples, row.model.replace(" [", ", ").rstrip("]")


def _theirs(row: verdicts.Row) -> str:
  return row.text if row.spread is None else f"{row.text} ({row.spread[0]:g} to {row.spread[1]:g})"


def _ours(one: verdicts.Comparison) -> str:
  if one.spread is None:
    return f"{one.ours:.1f}"
  seeds = _number(one.count, "seed")
  if one.count == 1:
    return f"{one.ours:.1f}, {seeds}"
  return f"{one.ours:.1f} ({one.spread[0]:.1f} to {one.spread[1]:.1f}), {seeds}"


def _efforts(efforts: Sequence[effort.Effort]) -> Iterator[pages.Block]:
  if not efforts:
    return
  yield pages.Heading(2, "What it took")
  yield pages.Paragraph(
    "Steps alone: runs x images / images a second, the median; and from start to end, start-up and "
    "evaluations included, where a sweep timed it."
  )
  header = ("network", "pixels", "batch", "steps", "on")
  titles = (*header, "runs", "images each", "images/s", "steps, hours", "in all, hours")
  rows = []
  for one in efforts:
    name, resize, crop, batch, steps = one.sizes
    hours = one.count * one.images / one.rate / 3600
    whole = "" if one.seconds is None else f"{one.seconds / 3600:.2f}"
    made = (f"{one.count}", f"{one.images:,}", f"{one.rate:,.0f}", f"{hours:.2f}", whole)
    rows.append((name, f"{resize} -> {crop}", f"{batch}", f"{steps:,}", one.place, *made))
  yield pages.Table(titles, rows, names=len(header))


def _startups(startups: Sequence[effort.Startup]) -> Iterator[pages.Block]:
  if not startups:
    return
  yield pages.Heading(2, "Start-up")
  yield pages.Paragraph(
    "Seconds from the beginning of a run until its first step is done. Runs of one architecture, "
    "size, batch and number of classes share what is compiled, so only the first compiles it, "
    "unless an earlier run on the machine had."
  )
  header = ("network", "pixels", "batch", "classes", "on", "first run", "later runs")
  rows = [
    (
      *(one.sizes[0], f"{one.sizes[1]} -> {one.sizes[2]}", f"{one.sizes[3]}", f"{one.sizes[4]}"),
      one.place,
      f"{one.first:.1f}",
      f"{one.others.median:.1f} ({one.others.low:.1f} to {one.others.high:.1f}), "
      f"{_number(one.others.count, 'run')}",
    )
    for one in startups
  ]
  yield pages.Table(header, rows, names=2)


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


def _made(found: Sequence[reading.Run], recipe: recipes.Recipe) -> str:
  """Returns what was run, where, when and how, in one line."""
  departing = "" if recipe.follows_rule else " That is not the rule itself."
  return f"{_run_on(found)} Recipe: {_recipe(found)}.{departing}"


def _run_on(found: Sequence[reading.Run]) -> str:
  days = sorted({run.started[:10] for run in found if run.started})
  when = "at a time that isn't on record" if not days else days[0]
  if len(days) > 1:
    when = f"{days[0]} to {days[-1]}"
  return f"{_number(len(found), 'run')} on {_devices(found)}, {when}{_speed(found)}."


def _speed(found: Sequence[reading.Run]) -> str:
  """Returns the images a second, where that is one network's on one kind of device."""
  speeds = [r.images_per_second for r in found if r.images_per_second is not None]
  if (
    not speeds
    or len({(r.architecture, r.device, r.num_devices, r.config["crop"]) for r in found}) > 1
  ):
    return ""
  return f", {intervals.summarize(speeds).median:,.0f} images/s in the median"


def _devices(found: Iterable[reading.Run]) -> str:
  names = sorted({run.place for run in found})
  return "; ".join(names)


def _recipe(found: Sequence[reading.Run]) -> str:
  reasons = sorted({run.reason for run in found if run.reason})
  recipe = found[0].recipe
  why = f" ({'; '.join(reasons)})" if reasons and not recipe.follows_rule else ""
  return f"{recipe}{why}"


def _title(what: str, found: Iterable[reading.Run], recipe: recipes.Recipe) -> str:
  """Returns a figure's title, which names a recipe that isn't the rule's."""
  reasons = sorted({run.reason for run in found if run.reason})
  if recipe.follows_rule:
    return f"{what}\nby the rule, preset {recipe.preset}"
  told = "; ".join(reasons) or str(recipe)
  return f"{what}\n{told if 'reduced rule' in told else f'not the rule itself: {told}'}"


def _described(title: str, *marks: str) -> str:
  """Returns a figure's title, and what its marks mean, as one line."""
  return "; ".join((title.replace("\n", ", "), *marks))


def _summary(s: intervals.Summary) -> str:
  if s.count == 1:
    return f"{s.median:.1f}, 1 seed"
  narrower = s.interval not in (None, (s.low, s.high))
  sure = (
    f", median in {s.interval[0]:.1f} to {s.interval[1]:.1f}" if s.interval and narrower else ""
  )
  return f"{s.median:.1f} ({s.low:.1f} to {s.high:.1f}), {s.count} seeds{sure}"


def _set(dataset: str, protocol: str) -> str:
  return dataset if protocol == "final" else f"{dataset} ({protocol})"


def _shots(shots: int | None) -> str:
  return "full" if shots is None else f"{shots}-shot"


def _range(numbers: Iterable[int]) -> str:
  ordered = sorted(numbers)
  return str(ordered[0]) if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _number(count: int, what: str) -> str:
  return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
