"""The report of a run as one HTML page, made from the files of its folder alone."""

import contextlib
import dataclasses
import functools
import pathlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jinja2
import markupsafe

from bit_jax.report import charts, page, pictures, rule, run_files, values
from bit_jax.runs import interval, mistakes, per_class, reporting, results, run_folder
from bit_jax.runtime import clock, files, phrases

_TEMPLATE = f"run{page.HTML}"
_LARGEST_TABLE = 25  # classes whose confusion matrix is a table of numbers; of more it is a picture
_MOST_CLASSES = 1000  # rows of the table of classes
_MOST_PAIRS = 12  # confusions that are listed
_MOST_TEXTS = 50  # warnings that are listed
# What Pillow raises at a damaged picture, and Python at a false list of its images.
_NO_SHEET = (
  *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
  *(RuntimeError, EOFError, struct.error, zlib.error),
)
_STYLES = {"train": "train", reporting.VAL: "val", reporting.TEST: "test"}


@dataclasses.dataclass(frozen=True)
class Sheet:
  """The images of a picture file.

  Attributes:
    tiles: The images; none if the file doesn't say where they are, as in version 0.1.
    whole: The whole picture as a data URI, where there are no tiles; '' if it can't be shown.
    fault: Why it can't be shown, or ''.
  """

  tiles: Sequence[pictures.Tile] = ()
  whole: str = ""
  fault: str = ""


def write(
  folder: pathlib.Path,
  out: pathlib.Path | None = None,
  warn: Callable[[str], object] = lambda _: None,
) -> pathlib.Path:
  """Writes the report of a run folder, whether the run is finished or not; returns its path.

  Args:
    folder: The run folder.
    out: The file to write; `report.html` in the folder by default.
    warn: Gets a line for each damaged record of the run, which the page names, too.

  Raises:
    UserError: The folder isn't that of a run.
    OSError: The file can't be written.
  """
  path = folder / run_folder.REPORT if out is None else out
  run = run_files.read(folder)
  for name, fault in _faults(run):
    warn(f"warning: {name} {fault}; the page has only what could be read.")
  text = html(run)
  with files.replacing(path) as temporary:
    temporary.write_text(text, "utf-8")
  return path


def html(run: run_files.RunFiles) -> str:
  """Returns the page of a run."""
  context = _context(run)
  return page.build(context["title"], markupsafe.Markup(_template().render(context)))


@functools.cache
def _template() -> jinja2.Template:
  templates = page.environment()
  templates.filters |= {"percent": _percent, "config": rule.text, "shade": pictures.shade}
  return templates.get_template(_TEMPLATE)


def _context(run: run_files.RunFiles) -> dict[str, Any]:
  """Returns what the template says."""
  name = values.text(run.config.get("name")) or values.plain(run.folder.absolute().name)
  top1 = _share(run.result, "top1")
  state = f"top-1 {top1:.2%}" if top1 is not None else _progress(run)
  confusion = run.confusion
  ranked = sorted(run.classes, key=lambda c: (c.top1 is None, c.top1 or 0.0))
  return {
    "run": run,
    "name": name,
    "state": state,
    "title": f"{name}: {state}",
    "lead": _lead(run),
    "figures": list(_figures(run)),
    "progress": "" if run.is_finished else _progress(run),
    "faults": _faults(run),
    "left_out": _left_out(run),
    "warnings": _warnings(run),
    "curves": _curves(run),
    "samples": _pairs(_sheet(run.folder / results.AUGMENTED)),
    "predictions": _sheet(run.folder / results.PREDICTIONS),
    "mistakes": _shown_mistakes(run),
    "matrix": _matrix(confusion),
    "has_table": confusion is not None and 0 < len(confusion.names) <= _LARGEST_TABLE,
    "pairs": confusion.pairs[:_MOST_PAIRS] if confusion is not None else (),
    "classes": ranked[:_MOST_CLASSES] if len(ranked) > _MOST_CLASSES else run.classes,
    "rule": rule.compare(run.config, _number_trained(run)),
    "timing": _timing(run),
    "environment": _environment(run),
    "resumed": [_part(p) for p in _list(run.environment.get("resumed")) if isinstance(p, dict)],
    "listing": _listing(run),
    "per_class": per_class.PER_CLASS,
  }


def _lead(run: run_files.RunFiles) -> str:
  """Returns a sentence on what was trained on what."""
  c = run.config
  if not c:
    return ""
  weights = values.text(c.get("weights"))
  origin = "random initialisation" if weights == "none" else pathlib.PurePath(weights).name
  path = values.text(c.get("data_path"))
  data = pathlib.PurePath(path).name if path else values.text(c.get("dataset"))
  shots = values.whole(c.get("shots"))
  chosen = f", {phrases.counted(shots, 'image')} per class" if shots else ""
  date = values.text(run.environment.get("started"))[:10]
  held_out = ", evaluated on a held-out part" if c.get("protocol") == "select" else ""
  return (
    f"{values.text(c.get('model'))} from {origin}, fine-tuned on {data}{chosen}{held_out}, seed "
    f"{values.plain(c.get('seed'))}{f'; started {date}' if date else ''}."
  )


def _progress(run: run_files.RunFiles) -> str:
  """Returns how far a run without a result is."""
  done = max((row["step"] for rows in run.rows.values() for row in rows), default=0)
  total = values.whole(run.config.get("total_steps"))
  if not done:
    return "no step yet"
  return f"step {done:,} of {total:,}" if total else f"step {done:,}"


def _figures(run: run_files.RunFiles) -> Iterator[tuple[str, str, str]]:
  """Yields (label, value, note) of the figures that are read first."""
  result = run.result
  number, top1 = values.whole(result.get("num_test")), _share(result, "top1")
  if top1 is not None:
    yield "Top-1 accuracy", f"{top1:.2%}", interval.of_few(top1, number or 0)
  elif evaluated := [*run.rows.get(reporting.VAL, ()), *run.rows.get(reporting.TEST, ())]:
    last = max(evaluated, key=lambda row: row["step"])
    yield "Top-1 so far", f"{last['top1']:.2%}", f"evaluated after step {last['step']:,}"
  for name, label in (
    ("top5", "Top-5 accuracy"),
    ("balanced_accuracy", "Balanced accuracy"),
    ("macro_f1", "Macro F1"),
  ):
    if (share := _share(result, name)) is not None:
      yield label, f"{share:.2%}", "mean over classes" if name == "balanced_accuracy" else ""
  if (loss := values.number(result.get("loss"))) is not None:
    yield "Test loss", f"{loss:.4g}", "cross-entropy"
  if (chosen := _share(result, "val_top1")) is not None:
    count = values.whole(result.get("num_val"))
    yield "Validation top-1", f"{chosen:.2%}", f"{count:,} images" if count else ""
  for name, label in (("num_test", "Test images"), ("num_train", "Training images")):
    if (count := values.whole(result.get(name))) is not None:
      classes = phrases.counted(len(run.classes), "class", "classes")
      yield label, f"{count:,}", classes if run.classes and name == "num_train" else ""
  if (steps := values.whole(result.get("steps"))) is not None:
    best = values.whole(result.get("best_step"))
    batch = values.whole(run.config.get("batch_size"))
    note = f"weights of step {best:,}" if best else f"of {batch:,} images" if batch else ""
    yield "Steps", f"{steps:,}", note
  if (seconds := values.positive(result.get("seconds"))) is not None:
    yield "Time of the steps", clock.format_seconds(seconds), ""


def _faults(run: run_files.RunFiles) -> list[tuple[str, str]]:
  """Returns (file, why it can't be used); the sections say which files are not there."""
  return [(name, fault) for name, fault in run.faults.items() if fault != "is not there"]


def _left_out(run: run_files.RunFiles) -> list[tuple[int, str]]:
  found = run.result.get("left_out")
  counts = found.items() if isinstance(found, dict) else ()
  return [(n, values.plain(why)) for why, count in counts if (n := values.whole(count))]


def _warnings(run: run_files.RunFiles) -> list[str]:
  found = [values.plain(text, 1000) for text in _list(run.result.get("warnings"))]
  more = len(found) - _MOST_TEXTS
  return [*found[:_MOST_TEXTS], *([f"and {more:,} more"] if more > 0 else [])]


def _curves(run: run_files.RunFiles) -> dict[str, Any]:
  """Returns the charts by title, and the names and styles of their lines."""
  evaluated = "held-out images" if run.config.get("protocol") == "select" else "test images"
  names = {
    "train": "training images, as augmented",
    reporting.VAL: "validation images",
    reporting.TEST: evaluated,
  }
  kinds = [kind for kind in names if run.rows.get(kind)]

  def lines(field: str, factor: float = 1.0, **options: Any) -> list[charts.Line]:
    return [
      charts.Line(names[kind], _STYLES[kind], _points(run.rows[kind], field, factor), **options)
      for kind in kinds
    ]

  rates = [line for line in lines("learning_rate", stepped=True) if line.style == "train"]
  positive = [y for line in rates for _, y in line.points if y > 0]
  wide = bool(positive) and max(positive) > 5 * min(positive)
  drawn = {
    "Loss (cross-entropy)": charts.draw("Loss", lines("loss")),
    "Top-1 accuracy": charts.draw("Top-1 accuracy", lines("top1", 100), unit="%", high=100),
    "Learning rate": charts.draw("Learning rate", rates, logarithmic=wide),
  }
  return {
    "charts": {title: chart for title, chart in drawn.items() if chart},
    "legend": [(_STYLES[kind], names[kind]) for kind in kinds],
  }


def _points(rows: Sequence[dict[str, Any]], field: str, factor: float = 1.0) -> charts.Points:
  return [(row["step"], factor * row[field]) for row in rows if field in row]


def _sheet(picture: pathlib.Path) -> Sheet:
  """Returns the images of a picture, or why they can't be shown."""
  try:
    if tiles := pictures.tiles(picture):
      return Sheet(tiles=tiles)
    return Sheet(whole=pictures.whole(picture))
  except FileNotFoundError:
    return Sheet(fault=f"{picture.name} is not there.")
  except _NO_SHEET:
    return Sheet(fault=f"{picture.name} is damaged.")


def _pairs(sheet: Sheet) -> dict[str, Any]:
  """Returns each image before and after augmentation: neighbours in the sheet."""
  return {
    "pairs": list(zip(sheet.tiles[::2], sheet.tiles[1::2], strict=False)),
    "sheet": sheet,
  }


def _shown_mistakes(run: run_files.RunFiles) -> dict[str, Any]:
  """Returns the most confident mistakes with their images."""
  if run.mistakes is None:
    return {"listed": [], "sheet": Sheet(), "none": False}
  sheet = _sheet(run.folder / mistakes.PICTURE) if run.mistakes else Sheet()
  named = [dataclasses.replace(m, image=_image(m.image)) for m in run.mistakes]
  shown = list(zip(named, sheet.tiles, strict=False))
  return {"listed": shown, "sheet": sheet, "none": not run.mistakes}


def _image(image: str) -> str:
  """Returns which image a mistake is: the name of its file, or its number."""
  return f"image {image}" if image.isdigit() else pathlib.PurePosixPath(image).name


def _matrix(confusion: run_files.Confusion | None) -> tuple[str, int] | None:
  """Returns the picture of a confusion matrix (`pictures.matrix`), None for few or many classes."""
  if confusion is None or confusion.counts is None or len(confusion.names) <= _LARGEST_TABLE:
    return None
  return pictures.matrix(confusion.counts)


def _number_trained(run: run_files.RunFiles) -> int | None:
  """Returns the number of training images, None where the folder doesn't say."""
  if (number := values.whole(run.result.get("num_train"))) is not None:
    return number
  counts = [one.trained for one in run.classes]
  return sum(n for n in counts if n is not None) if counts and None not in counts else None


def _timing(run: run_files.RunFiles) -> dict[str, Any]:
  """Returns figures and charts of speed and input wait."""
  result, rows = run.result, run.rows.get("train", [])
  figures: list[tuple[str, str, str]] = []
  if (startup := values.positive(result.get("startup_seconds"))) is not None:
    figures.append(("Start-up", clock.format_seconds(startup), "until the first step was done"))
  if (seconds := values.positive(result.get("seconds"))) is not None:
    figures.append(
      ("Time of the steps", clock.format_seconds(seconds), "without start-up and evaluations")
    )
  speed = values.positive(result.get("images_per_second"))
  batch = values.positive(run.config.get("batch_size"))
  if speed is not None:
    note = f"{1000 * batch / speed:,.0f} ms a step" if batch else ""
    figures.append(("Images per second", charts.format_number(speed), note))
  waiting = input_wait(rows)
  if waiting is not None:
    figures.append(("Waiting for input", f"{waiting:.1%}", "of the time of the steps"))
  line = functools.partial(charts.Line, style="train")
  speeds = [(x, y) for x, y in _points(rows, "images_per_second") if y > 0]
  drawn = {
    "Images per second": charts.draw("Images per second", [line("speed", points=speeds)], low=0),
    "Waiting for input": charts.draw(
      "Waiting for input, share of the time of the steps",
      [line("input wait", points=_points(rows, "input_wait_share", 100))],
      unit="%",
      low=0,
      high=1,
    ),
  }
  return {
    "figures": figures,
    "charts": {title: chart for title, chart in drawn.items() if chart},
    "waiting": waiting,
  }


def input_wait(rows: Sequence[dict[str, Any]]) -> float | None:
  """Returns the share of the time of the steps that was spent on waiting for input.

  Args:
    rows: Of kind 'train', sorted by step; each has the share of the steps since the one before,
      and their speed.
  """
  total = waited = 0.0
  before = 0
  for row in rows:
    steps, before = row["step"] - before, row["step"]
    speed = row.get("images_per_second", 0)
    if speed > 0 and "input_wait_share" in row:
      total += steps / speed
      waited += row["input_wait_share"] * steps / speed
  return waited / total if total > 0 else None


def _environment(run: run_files.RunFiles) -> dict[str, str]:
  """Returns {what: text} of `environment.json`."""
  e = run.environment
  fields = {
    "Data": "data",
    "Model selection on": "chosen_on",
    "Weights": "weights",
    "SHA-256 of the weights": "weights_sha256",
    "Number format": "dtype",
    "Machine": "machine",
    "Python": "python",
    "Commit": "commit",
  }
  found = {"Started": values.text(e.get("started")).replace("T", " ")} if e.get("started") else {}
  found |= {label: values.plain(e[name]) for label, name in fields.items() if e.get(name)}
  if device := values.text(e.get("device")):
    number = values.whole(e.get("num_devices"))
    processes = values.whole(e.get("num_processes")) or 1
    more = f", {processes} processes" if processes > 1 else ""
    found["Devices"] = f"{number if number is not None else '?'} x {device}{more}"
  for label, name in (("Packages", "packages"), ("Variables", "variables")):
    pairs = e.get(name)
    if isinstance(pairs, dict) and pairs:
      texts = [f"{k} {v}" for k, v in pairs.items() if v is not None]
      found[label] = values.plain(", ".join(texts), 2000)
  return found


def _part(part: dict[str, Any]) -> str:
  """Returns a sentence on a resumed part of a run."""
  texts = [values.plain(part.get(name)) for name in ("started", "machine")]
  device = f"{values.plain(part.get('num_devices'))} x {values.plain(part.get('device'))}"
  changed = part.get("changed")
  changes = ""
  if isinstance(changed, dict) and changed:
    changes = "; changed: " + ", ".join(f"{k} {rule.text(v)}" for k, v in changed.items())
  return values.plain(f"{texts[0]} on {texts[1]}, {device}{changes}", 1000)


def _listing(run: run_files.RunFiles) -> list[tuple[str, str, str]]:
  """Returns (file, what it is, size) of the files of the run that are there."""
  found = []
  for name, what in results.FILES.items():
    with contextlib.suppress(OSError):
      size = (run.folder / name).stat().st_size
      if name != run_folder.REPORT:
        found.append((name, what, phrases.file_size(size)))
  return found


def _share(of: dict[str, Any], name: str) -> float | None:
  """Returns a field that is a share, None for anything else."""
  found = values.number(of.get(name))
  return found if found is not None and 0 <= found <= 1 else None


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _percent(share: float | None) -> str:
  return "" if share is None else f"{100 * share:.1f}"
