"""The report: figures and data of its sections, which `templates` put into words and pages."""

import collections
import functools
import itertools
import pathlib
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import pandas as pd

from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.report import page
from bit_jax.runtime import files
from experiments import ledger
from experiments.results import (
  collect,
  comparisons,
  effort,
  figures,
  folders,
  reading,
  seeds,
  verdicts,
)

_TEMPLATES = pathlib.Path(__file__).with_name("templates")


class Section(NamedTuple):
  """One comparison, or those of one recipe.

  Attributes:
    compared: What is compared.
    points: All its points, from `seeds.points`.
    what: What its figure shows.
    runs: Runs of one recipe, the reference where several are compared.
    table: The points' values in rows, and columns per number of examples or network.
    path: The figure's PNG file; None if it couldn't be drawn.
  """

  compared: Any
  points: pd.DataFrame
  what: str
  runs: Sequence[reading.Run]
  table: pd.DataFrame | None = None
  path: pathlib.Path | None = None


def pages(found: collect.Collection, given: str, folder: pathlib.Path) -> dict[str, str]:
  """Draws the figures and returns the report as {file name: text}, in Markdown and HTML.

  Args:
    found: The runs.
    given: The folder of the runs, as given to the command.
    folder: Where the figures go.
  """
  context = {"found": found, "given": given, **_context(found, folder)}
  markdown, html = (environment().get_template(f"report.{n}.jinja") for n in ("md", "html"))
  text = re.sub(r"\n{3,}", "\n\n", markdown.render(context)).strip() + "\n"
  return {
    "report.md": text,
    "report.html": page.build("Results", markupsafe.Markup(html.render(context))),
  }


def environment() -> jinja2.Environment:
  """Returns the environment of the templates, with their filters."""
  templates = page.environment(_TEMPLATES)
  templates.filters |= {
    "by_text": lambda pairs: folders.grouped((text, name) for name, text in pairs),
    "items_of": lambda of, names: [templates.getitem(of, name) for name in names],
    "md": markdown,
    "md_start": lambda text: re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", text),
    "median": statistics.median,
  }
  return templates


def markdown(value: Any) -> str:
  """Returns a value as one line of Markdown in which nothing is markup; `a_b` stays readable."""
  text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(str(value).split()))
  text = re.sub(r"([\\`*\[\]~$])", r"\\\1", text.replace("<", "&lt;"))
  return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _context(found: collect.Collection, folder: pathlib.Path) -> dict[str, Any]:
  """Returns what the templates say, and draws the figures."""
  runs = seeds.frame(found.runs)
  recorded = collections.Counter(rate for run in found.runs for rate in run.metrics)
  rates = {rate: title for rate, title in ledger.SCORES.items() if rate in recorded}
  sections = Sections(folder, rates)
  panels, scores = comparisons.panels(runs), comparisons.scores(runs)
  compared = comparisons.recipe_comparisons(runs)
  shown = {id(run) for one in (*panels, *compared) for run in one.runs}
  others = [run for run in found.runs if id(run) not in shown and run.task is None]
  published = verdicts.compare(verdicts.read(), runs, scores)
  versions = runs[runs.data != ""].groupby("dataset", sort=False).data.unique()
  return {
    "missing": [title for rate, title in ledger.SCORES.items() if rate not in rates],
    "partial": [
      f"{title} ({recorded[rate]} of {len(found.runs)})"
      for rate, title in rates.items()
      if recorded[rate] < len(found.runs)
    ],
    "rates": rates,
    "few_shot": [sections.few_shot(of) for of in comparisons.by_recipe(panels)],
    "vtab": [sections.vtab(of) for of in comparisons.by_recipe(scores)],
    "known_sizes": sorted({*runs.architecture} & {*architectures.ARCHITECTURES}),
    "sizes": [sections.sizes(one) for one in comparisons.sizes(runs)],
    "recipes": [sections.recipes(one) for one in compared],
    "others": others,
    "other_points": seeds.points(seeds.frame(others), [*comparisons.CELL, "recipe"]),
    "published": published,
    "unmatched": verdicts.unmatched(found.runs, published),
    "efforts": effort.efforts(runs),
    "startups": effort.startups(runs),
    "versions": {name: of for name, of in versions.items() if len(of) > 1},
    "warnings": [(run.name, text) for run in found.runs for text in run.warnings],
  }


class Sections:
  """Makes the sections of a report, and draws their figures.

  Attributes:
    rates: {metric: its title} of the metrics that tables show.
  """

  def __init__(self, folder: pathlib.Path, rates: Mapping[str, str]):
    """Starts without any section.

    Args:
      folder: Where the figures go.
      rates: See the attribute.
    """
    self.rates = rates
    self._folder = folder
    self._names: set[str] = set()  # of figures
    self._words: Any = environment().get_template("words.jinja").module

  def few_shot(self, panels: Sequence[comparisons.Compared]) -> Section:
    """Returns the curves of one recipe."""
    points = pd.concat([panel.points for panel in panels])
    runs = [run for panel in panels for run in panel.runs]
    points["data set"] = [of[0].labelled(of[0].dataset) for of in points.runs]
    table = self._wide(points, ["data set", "network"], "shots")
    table = table[sorted(table.columns)].rename(columns=reading.examples)
    what = "Accuracy against examples per class"
    words = ("fewshot", "-".join(sorted({r.dataset for r in runs})), runs[0].protocol)
    return self._drawn(figures.few_shot, Section(panels, points, what, runs, table), words)

  def vtab(self, scores: Sequence[comparisons.Score]) -> Section:
    """Returns the results on VTAB-1k by one recipe."""
    points = pd.concat([s.points.assign(network=s.runs[0].network) for s in scores])
    runs = [run for score in scores for run in score.runs]
    table = self._wide(points.sort_values("place", kind="stable"), ["task", "group"], "network")
    done = [len(score.points) for score in scores]
    ends = " to ".join(map(str, sorted({min(done), max(done)})))
    what = f"VTAB-1k, {ends} of {len(vtab.TASKS)} tasks"
    section = Section(scores, points, what, runs, table[points.network.unique()])
    return self._drawn(figures.vtab, section, ("vtab", runs[0].protocol))

  def sizes(self, one: comparisons.Compared) -> Section:
    """Returns networks that differ in size alone."""
    first, start = one.runs[0], one.points.start[0]
    what = f"Accuracy against size and cost: {first.labelled(first.subject)}, {start}"
    draw = functools.partial(figures.sizes, cost=self._words.cost(first))
    section = Section(one, one.points, what, one.runs)
    return self._drawn(draw, section, ("sizes", first.subject, first.protocol, start))

  def recipes(self, one: comparisons.RecipeComparison) -> Section:
    """Returns one network on one data set by several recipes."""
    run = one.runs[0]
    what = f"{run.labelled(run.dataset)}, {run.examples}, {run.network}"
    words = ("recipes", run.dataset, run.protocol, run.examples, run.network)
    return self._drawn(figures.recipes, Section(one, one.points, what, one.reference), words)

  def path(self, *words: str) -> pathlib.Path:
    """Returns the path of a figure, named after the words; none is given twice."""
    stem = re.sub(r"[^a-z0-9.]+", "-", " ".join(words).lower()).strip("-.")[:80]
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in self._names)
    self._names.add(name)
    return self._folder / f"{name}.png"

  def _drawn(self, draw: Callable[..., None], section: Section, words: Sequence[str]) -> Section:
    """Draws a figure; returns its section, without the figure if that fails.

    Args:
      draw: Draws it, given what is compared, a title and the path.
      section: The section. The title says what it shows, and how its runs were trained.
      words: Parts of the figure's file name.
    """
    path = self.path(*words)
    title = f"{section.what}\n{self._words.how(section.runs)}"
    with files.optional(path.name, functools.partial(print, file=sys.stderr)):
      path.unlink(missing_ok=True)
      draw(section.compared, title=title, picture=path)
    return section._replace(path=path) if path.exists() else section

  def _wide(self, points: pd.DataFrame, names: Sequence[str], column: str) -> pd.DataFrame:
    """Returns a table with a column per value of `column`; of several metrics a row each."""
    cells = points.rename(columns=self.rates).set_index([*names, column])[[*self.rates.values()]]
    rows = cells.rename_axis(columns="metric").stack(future_stack=True)
    table: Any = rows.unstack(column, fill_value="", sort=False)
    return table if len(self.rates) > 1 else table.droplevel("metric")
