"""The report: figures and tables of its sections, which `templates` put into words and pages."""

import base64
import functools
import itertools
import pathlib
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.runtime import clock, files, phrases
from experiments.results import collect, comparisons, effort, figures, reading, seeds, verdicts

_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_RATES = {"top1": "top-1", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


class Picture(NamedTuple):
  """A figure's PNG file, and a text that describes it."""

  path: pathlib.Path
  text: str


class Section(NamedTuple):
  """One comparison, or those of one recipe.

  Attributes:
    runs: All its runs.
    picture: Its figure; None if it couldn't be drawn.
    table: The same numbers as text; names of rows are the index.
    compared: What is compared.
  """

  runs: Sequence[reading.Run]
  picture: Picture | None
  table: pd.DataFrame
  compared: Any


def pages(found: collect.Collection, given: str, folder: pathlib.Path) -> dict[str, str]:
  """Draws the figures and returns the report as {file name: text}, in Markdown and HTML.

  Args:
    found: The runs.
    given: The folder of the runs, as given to the command.
    folder: Where the figures go.
  """
  context = {"found": found, "given": given, **_context(found, folder)}
  names, templates = ("report.md", "report.html"), environment()
  texts = {n: templates.get_template(f"{n}.jinja").render(context) for n in names}
  return {n: re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" for n, text in texts.items()}


def environment() -> jinja2.Environment:
  """Returns the environment of the templates, with their filters."""
  templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=lambda name: name == "report.html.jinja",
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  templates.filters |= {
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
    "counted": phrases.counted,
    "duration": clock.format_seconds,
    "listed": _listed,
    "md": markdown,
    "md_start": lambda text: re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", text),
    "run_on": run_on,
    "recipe": recipe_text,
    "tabulate": tabulate,
  }
  return templates


def markdown(value: Any) -> str:
  """Returns a value as one line of Markdown in which nothing is markup; `a_b` stays readable."""
  text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(str(value).split()))
  text = re.sub(r"([\\`*\[\]~$])", r"\\\1", text.replace("<", "&lt;"))
  return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def tabulate(
  rows: pd.DataFrame | Sequence[Any], names: Mapping[str, str], values: Mapping[str, str]
) -> pd.DataFrame:
  """Returns a table of text.

  Args:
    rows: A table, or objects.
    names: {title: format string of a row} of the columns that name a row; they become the index.
    values: The same of the other columns.
  """
  objects = seeds.rows(rows) if isinstance(rows, pd.DataFrame) else rows
  columns = {**names, **values}
  cells = [[form.format(row) for form in columns.values()] for row in objects]
  return pd.DataFrame(cells, columns=list(columns)).set_index(list(names))


def _context(found: collect.Collection, folder: pathlib.Path) -> dict[str, Any]:
  """Returns what the templates say, and draws the figures."""
  runs = seeds.frame(found.runs)
  recorded = {rate for run in found.runs for rate in run.metrics}
  sections = Sections(folder, {rate: _RATES[rate] for rate in _RATES if rate in recorded})
  panels, scores = comparisons.panels(runs), comparisons.scores(runs)
  compared = comparisons.recipe_comparisons(runs)
  shown = {id(run) for one in (*panels, *compared) for run in one.runs}
  others = [run for run in found.runs if id(run) not in shown and run.task is None]
  other_points = seeds.points(seeds.frame(others), [*comparisons.CELL, "recipe"])
  versions = runs[runs.data != ""].groupby("dataset", sort=False).data.unique()
  warned = defaultdict(list)
  for run in found.runs:
    for warning in run.warnings:
      warned[warning].append(run.name)
  return {
    "missing": [title for rate, title in _RATES.items() if rate not in recorded],
    "rates": sections.formats,
    "few_shot": [sections.few_shot(of) for of in _by_recipe(panels)],
    "vtab": [sections.vtab(of) for of in _by_recipe(scores)],
    "known_sizes": sorted({*runs.architecture} & {*architectures.ARCHITECTURES}),
    "sizes": [sections.sizes(one) for one in comparisons.sizes(runs)],
    "recipes": [sections.recipes(one) for one in compared],
    "others": others,
    "other_points": other_points.assign(labels=other_points.runs.map(_labels)),
    "published": published(verdicts.compare(verdicts.read(), runs, scores), found.runs),
    "efforts": effort.efforts(runs),
    "startups": effort.startups(runs),
    "versions": [f"{n}: {', '.join(sorted(of))}" for n, of in versions.items() if len(of) > 1],
    "warnings": [f"{text} ({_among(names)})" for text, names in warned.items()],
  }


class Sections:
  """Makes the sections of a report, and draws their figures."""

  def __init__(self, folder: pathlib.Path, rates: Mapping[str, str]):
    """Starts without any section.

    Args:
      folder: Where the figures go.
      rates: {metric: its title} of the metrics that tables show.
    """
    self._folder, self._rates = folder, rates
    self._names: set[str] = set()  # of figures
    self.formats = {title: f"{{0.{rate}}}" for rate, title in rates.items()}

  def few_shot(self, panels: Sequence[comparisons.Compared]) -> Section:
    """Returns the curves of one recipe."""
    points = pd.concat([panel.points for panel in panels])
    runs = [run for panel in panels for run in panel.runs]
    marks = "a dot per seed, the line through their medians"
    if points.fewer.any():
      marks += "; hollow and dashed where there are fewer seeds than elsewhere on the line"
    path = self.path("fewshot", "-".join(sorted({r.dataset for r in runs})), runs[0].protocol)
    draw = functools.partial(figures.few_shot, panels)
    picture = _draw(path, "Accuracy against examples per class", runs, draw, marks)
    points["data set"] = [of[0].labelled(of[0].dataset) for of in points.runs]
    table = self._wide(points, ["data set", "network"], "shots")
    table = table[sorted(table.columns)].rename(columns=reading.examples)
    return Section(runs, picture, table, panels)

  def vtab(self, scores: Sequence[comparisons.Score]) -> Section:
    """Returns the results on VTAB-1k by one recipe."""
    runs = [run for score in scores for run in score.runs]
    fewest, most = min(len(s.points) for s in scores), max(len(s.points) for s in scores)
    done = f"{most}" if fewest == most else f"{fewest} to {most}"
    what = f"VTAB-1k, {done} of {len(vtab.TASKS)} tasks"
    marks = "bars are medians, whiskers go from the lowest to the highest seed"
    draw = functools.partial(figures.vtab, scores)
    picture = _draw(self.path("vtab", runs[0].protocol), what, runs, draw, marks)
    points = pd.concat([s.points.assign(network=s.runs[0].network) for s in scores])
    networks = list(points.network.unique())
    table = self._wide(points.sort_values("place", kind="stable"), ["task", "group"], "network")
    return Section(runs, picture, table[networks], scores)

  def sizes(self, one: comparisons.Compared) -> Section:
    """Returns networks that differ in size alone."""
    first, start = one.runs[0], one.points.start[0]
    is_vtab = first.task is not None
    timed = f"{len(vtab.TASKS)} tasks' runs" if is_vtab else "a run"
    cost = f"time of the steps of {timed} on {first.place}"
    path = self.path("sizes", first.subject, first.protocol, start)
    draw = functools.partial(figures.sizes, one, cost)
    what = f"Accuracy against size and cost: {first.labelled(first.subject)}, {start}"
    table = tabulate(
      one.points.assign(millions=one.points.parameters / 1e6),
      {"network": "{0.architecture}", "examples": "" if is_vtab else "{0.runs[0].examples}"},
      {
        "parameters in millions, without head": "{0.millions:,.1f}",
        "top-1": "{0.top1}",
        f"{cost}, in s": "{0.seconds:,.0f}",
      },
    )
    return Section(one.runs, _draw(path, what, one.runs, draw), table, one)

  def recipes(self, one: comparisons.RecipeComparison) -> Section:
    """Returns one network on one data set by several recipes."""
    first, reference = one.runs[0], one.reference
    path = self.path("recipes", first.dataset, first.protocol, first.examples, first.network)
    what = f"{first.labelled(first.dataset)}, {first.examples}, {first.network}"
    picture = _draw(path, what, reference, functools.partial(figures.recipes, one))
    differences = [_difference(of, reference) for of in one.points.runs[1:]]
    table = tabulate(
      one.points.assign(difference=["reference", *differences]),
      {name: f"{{0.texts[{i}]}}" for i, name in enumerate(one.fields)},
      {**self.formats, "difference, same seeds": "{0.difference}"},
    )
    return Section(one.runs, picture, table, one)

  def path(self, *words: str) -> pathlib.Path:
    """Returns the path of a figure, named after the words; none is given twice."""
    stem = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-.")[:80]
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in self._names)
    self._names.add(name)
    return self._folder / f"{name}.png"

  def _wide(self, points: pd.DataFrame, names: Sequence[str], column: str) -> pd.DataFrame:
    """Returns a table with a column per value of `column`; of several metrics a row each."""
    titles = list(self._rates.values())
    cells = points.rename(columns=self._rates).melt([*names, column], titles, "metric", "cell")
    table = cells.pivot(index=[*names, "metric"], columns=column, values="cell").fillna("")
    rows = points[list(names)].itertuples(index=False, name=None)
    table = table.loc[list(dict.fromkeys((*row, title) for row in rows for title in titles))]
    return table if len(self._rates) > 1 else table.droplevel("metric")


def _difference(found: Sequence[reading.Run], reference: Sequence[reading.Run]) -> str:
  """Returns the median of the paired differences, and their number if not every seed has one."""
  paired = seeds.paired_differences(found, reference)
  if not paired:
    return "no seed in common"
  count = "" if len(paired) == len(found) else f", {len(paired)} of {len(found)} seeds"
  return f"{seeds.summarize(paired).median:+.2f}{count}"


def published(
  compared: Sequence[verdicts.Comparison], found: Sequence[reading.Run]
) -> dict[str, Any]:
  """Returns published values by source, each with its verdict or the number of a note."""
  notes = list(dict.fromkeys(one.differences for one in compared if one.differences))
  sources = defaultdict(list)
  for one in compared:
    note = one.differences and f"none, not like with like: note {notes.index(one.differences) + 1}"
    sources[f"{one.row.source}; {one.row.url_or_citation}"].append((one, one.verdict or note))
  return {
    "sources": sources,
    "notes": [f"Note {n}: {'; '.join(reasons)}." for n, reasons in enumerate(notes, start=1)],
    "unmatched": verdicts.unmatched(found, compared),
    "on_full_cifar": any("CIFAR" in c.row.source and c.row.shots == reading.ALL for c in compared),
  }


def _draw(
  path: pathlib.Path,
  what: str,
  found: Sequence[reading.Run],
  draw: Callable[[str, pathlib.Path], None],
  *marks: str,
) -> Picture | None:
  """Draws a figure; returns None if that fails, as a table has its numbers.

  Args:
    path: Where it goes.
    what: What it shows, the first line of its title; the second is how the runs were trained.
    found: Runs of one recipe.
    draw: Draws it, given the title and the path.
    *marks: What its marks mean.
  """
  recipe = found[0].recipe
  how = f"not by the rule itself ({_reasons(found) or recipe})"
  if recipe.follows_rule:
    how = f"by the rule, preset {recipe.preset}"
  drawn = []
  with files.optional(path.name, functools.partial(print, file=sys.stderr)):
    draw(f"{what}\n{how}", path)
    drawn.append(Picture(path, "; ".join((f"{what}, {how}", *marks))))
  return drawn[0] if drawn else None


def _listed(pairs: Iterable[tuple[str, str]]) -> list[str]:
  """Returns a line per text, with the names of all folders that it applies to."""
  names = defaultdict(list)
  for name, text in pairs:
    names[text].append(name)
  return [f"{', '.join(of)}: {text}" for text, of in names.items()]


def _among(names: Sequence[str]) -> str:
  return names[0] if len(names) == 1 else f"{len(names)} runs, the first {names[0]}"


def _by_recipe(compared: Iterable[comparisons.Compared]) -> list[list[Any]]:
  """Returns together what one figure can show: panels or scores of one recipe and protocol."""
  result = defaultdict(list)
  for one in compared:
    result[one.runs[0].recipe, one.runs[0].protocol].append(one)
  return list(result.values())


def _labels(found: Sequence[reading.Run]) -> tuple[str, str]:
  return found[0].labelled(found[0].dataset), recipe_text(found)


def run_on(found: Sequence[reading.Run]) -> str:
  """Returns the number of runs, where and when they ran, and their speed, as a sentence."""
  days = sorted({run.started[:10] for run in found if run.started}) or ["date unknown"]
  when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
  places = " and ".join(sorted({run.place for run in found}))
  speeds = [r.images_per_second for r in found if r.images_per_second is not None]
  speed = ""
  if speeds and len({(r.architecture, r.place, r.config["crop"]) for r in found}) == 1:
    speed = f", median {seeds.summarize(speeds).median:,.0f} images/s"
  return f"{phrases.counted(len(found), 'run')} on {places}, {when}{speed}."


def recipe_text(found: Sequence[reading.Run]) -> str:
  """Returns the recipe of runs, and the reasons for its departures from the rule."""
  recipe, reasons = found[0].recipe, _reasons(found)
  return f"{recipe} ({reasons})" if reasons and not recipe.follows_rule else str(recipe)


def _reasons(found: Iterable[reading.Run]) -> str:
  return "; ".join(sorted({run.reason for run in found if run.reason}))
