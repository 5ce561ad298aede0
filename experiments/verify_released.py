"""Compares the accuracy of released fine-tuned checkpoints with published values.

    python -m experiments.verify_released [NAME_PATTERN ...]
    python -m experiments.verify_released --weights=FILE.npz --dataset=cifar100 [--size=48]

A pattern is a part of a name, or has wildcards ('BiT-M-*-ILSVRC2012'). Without a pattern, all
checkpoints with a published accuracy are evaluated: those on CIFAR-10 and ImageNet, the distilled
ones, the 285 of VTAB and the one in the package. Each is evaluated on the whole test split, with
the images prepared as for the published value. Checkpoints are downloaded only with `--download`;
missing ones are listed, and the others evaluated. The exit status is not 0 if nothing could be
evaluated or a figure differs.
"""

import argparse
import dataclasses
import fnmatch
import itertools
import pathlib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax import weights
from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.runs import run_folder
from bit_jax.runtime import cache, errors, exits, files, numerics, paths, phrases
from bit_jax.runtime.checks import at_least
from bit_jax.weights import catalogue, fetch
from experiments import evaluation, released

# Points, in addition to the rounding of the published value. The official frameworks differ by 0.03
# on CIFAR-10; the official JAX evaluation drops the last incomplete batch (16 of its 10,000
# images), and JPEG decoders and number formats change single predictions.
TOLERANCE = 0.1
_TITLES = (
  *("checkpoint", "data set", "test size", "images"),
  *("metric", "expected", "measured", "difference", "source"),
)
_WIDTHS = (40, 26, 24, 8, 7, 10, 10, 12, 1)

_LEGEND = f"""\
square: the image is resized to a square, as in BiT (bilinear, not antialiased).
A of B: the shorter side is resized to B pixels (antialiased) and the centre of A x A is cropped, as
  in timm; BiT's own evaluation resizes to a square.
!: the difference exceeds {TOLERANCE:g} points plus the rounding of the published value. Official
  frameworks differ by 0.03, and the official JAX code drops the last incomplete batch, up to 16 of
  10,000 images.
*: not judged, as the data differ from those of the published value."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One figure, or why there is none.

  Attributes:
    checkpoint: Name of the checkpoint or of its file.
    dataset: The data set it was evaluated on.
    test_size: How test images were prepared.
    images: Number of images evaluated.
    metric: 'top1' or 'top5'; '' if nothing was measured.
    expected: Published value in per cent, or None.
    rounding: Half a unit of its last digit.
    source: Where it was published.
    measured: In per cent, or None.
    remark: Why nothing was measured, or why it isn't judged.
    missing_file: Path below the cache folder of a missing checkpoint; else ''.
  """

  checkpoint: str
  dataset: str
  test_size: str
  images: int = 0
  metric: str = ""
  expected: float | None = None
  rounding: float = 0.0
  source: str = ""
  measured: float | None = None
  remark: str = ""
  missing_file: str = ""

  @property
  def difference(self) -> float | None:
    """Measured less expected, in points."""
    if self.measured is None or self.expected is None:
      return None
    return self.measured - self.expected

  @property
  def verdict(self) -> str:
    """'missing', 'measured' (nothing to compare with), 'equal' or 'different'."""
    if self.measured is None:
      return "missing"
    if self.difference is None or self.remark:
      return "measured"
    within = abs(self.difference) <= TOLERANCE + self.rounding + 1e-9
    return "equal" if within else "different"


def main(argv: Sequence[str]) -> None:
  """Evaluates the checkpoints of the command line, and prints the table.

  Raises:
    UserError: Nothing could be evaluated, a figure differs, or the command line is wrong.
  """
  options = _parser().parse_args(argv[1:])
  at_least("--batch", options.batch, 1)
  if options.size is not None:
    at_least("--size", options.size, 1)
  out = options.out
  if out and not (out.suffix in (".json", ".csv") and out.absolute().parent.is_dir()):
    raise errors.UserError(f"--out={out} must be a .json or .csv file in an existing folder.")
  if remark := numerics.ignored():
    print(remark, file=sys.stderr)
  checks = _checks(options)
  print(_columns(_TITLES), flush=True)
  found: list[Row] = []
  printed: set[str] = set()  # a missing file is the same line at each size
  for check in checks:
    new = _rows(check, options)
    found += new
    for text in map(line, new):
      if text not in printed:
        print(text, flush=True)
        printed.add(text)
    if out:
      write(out, found)
  print("", *vtab_lines(found), *notes(found), sep="\n", flush=True)
  require(found)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.verify_released",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("patterns", nargs="*", metavar="NAME_PATTERN")
  add("--weights", metavar="PATH", help="evaluate a file instead")
  add("--dataset", help="the data set for that file, named as in configs")
  add("--size", type=int, metavar="PIXELS", help="side of its test images")
  add("--data_dir", help="where tfds keeps prepared sets")
  add("--download", action="store_true", help="download missing checkpoints")
  add("--batch", type=int, default=256, help="images at once, or as many as fit")
  add("--out", type=paths.argument, metavar="FILE", help="write the rows to a .json or .csv file")
  return parser


def _checks(options: argparse.Namespace) -> list[released.Check]:
  """Returns the evaluations of the command line.

  Raises:
    UserError: It names nothing, or contradicts itself.
  """
  if options.weights:
    if options.patterns:
      raise errors.UserError("Give either names or --weights, not both.")
    return released.of_file(options.weights, options.dataset, options.size)
  if options.dataset or options.size is not None:
    raise errors.UserError(
      "--dataset and --size need a file of your own (--weights=PATH); released checkpoints are "
      "evaluated in the setting of their published values."
    )
  names = released.names()
  chosen = []
  for pattern in options.patterns or ["*"]:
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    matching = [pattern] if pattern in names else fnmatch.filter(names, wanted)
    if not matching:
      others = ", ".join(n for n in names if released.vtab_run(n) is None)
      raise errors.UserError(
        f"No checkpoint with a published accuracy has a name like {pattern!r}. Choose one of "
        f"{others}, or of VTAB, such as BiT-M-R50x1-run0-cifar100."
      )
    chosen += matching
  return [check for name in dict.fromkeys(chosen) for check in released.checks(name)]


def _rows(check: released.Check, options: argparse.Namespace) -> list[Row]:
  """Evaluates a checkpoint; an error is reported in its row and doesn't stop the others."""
  nothing = Row(check.name, check.dataset, str(check.view))
  try:
    file = weights.resolve(check.weights) if options.download else weights.locate(check.weights)
    name, _ = weights.infer(file)
    if name is None:
      raise errors.UserError(f"{file} fits no known network (python -m bit_jax.weights inspect).")
    tests = evaluation.load(check.dataset, check.view, options.data_dir)
    architecture = architectures.find(name)
    loaded = weights.load(file, architecture, head="keep", num_classes=tests.spec.num_classes)
    means = evaluation.evaluate(loaded.params, architecture, tests, batch_size=options.batch)
  except fetch.NotInCacheError as e:
    file_name = weights.find(check.weights).file
    return [dataclasses.replace(nothing, remark=str(e), missing_file=file_name)]
  except errors.UserError as e:
    return [dataclasses.replace(nothing, remark=str(e))]
  return rows(check, means, len(tests.loaded.part), tests.loaded.warnings)


def rows(
  check: released.Check, means: Mapping[str, float], images: int, warnings: Sequence[str]
) -> list[Row]:
  """Returns a row for each published value of a checkpoint, or one with its top-1.

  Args:
    check: What was evaluated, and how.
    means: 'top1' and so on, in [0, 1].
    images: Number of images evaluated.
    warnings: How the data differ from the set's description; then nothing is judged.
  """
  evaluated, remark = (check.name, check.dataset, str(check.view), images), " ".join(warnings)
  if not check.expected:
    return [Row(*evaluated, "top1", measured=100 * means["top1"], remark=remark)]
  return [
    Row(*evaluated, e.metric, e.value, e.rounding, e.source, 100 * means[e.metric], remark)
    for e in check.expected
    if e.metric in means
  ]


def line(row: Row) -> str:
  """Returns the table's line of a row."""
  cells = [row.checkpoint, row.dataset, row.test_size]
  if row.missing_file:
    return _columns(cells[:1]) + f"missing: {row.missing_file}"
  if row.measured is None:
    return _columns(cells) + f"not evaluated: {row.remark}"
  off = "" if row.difference is None else f"{row.difference:+.2f}"
  marks = {"different": " !", "measured": " *" if off else ""}
  cells += [f"{row.images:,}", row.metric]
  cells += ["none" if row.expected is None else f"{row.expected:.2f}%"]
  cells += [f"{row.measured:.2f}%", off + marks.get(row.verdict, ""), row.source]
  return _columns(cells).rstrip()


def _columns(cells: Sequence[str]) -> str:
  return "".join(f"{c:<{w}}" for c, w in zip(cells, _WIDTHS, strict=False))


def notes(found: Sequence[Row]) -> Iterator[str]:
  """Yields the notes below a table: missing files, the legend, and remarks on measured figures."""
  if absent := {row.missing_file for row in found} - {""}:
    yield (
      f"{phrases.counted(len(absent), 'checkpoint')} missing in {cache.directory()} "
      f"(${cache.ENVIRONMENT_VARIABLE}): download with --download from {catalogue.BASE_URL}, or "
      f"copy each to the path in its line."
    )
  measured = [row for row in found if row.measured is not None]
  if measured:
    yield _LEGEND
  yield from sorted({row.remark for row in measured if row.remark})


def vtab_lines(found: Sequence[Row]) -> Iterator[str]:
  """Yields the mean accuracy over the tasks of each released VTAB run, at each size.

  Means over all 19 tasks are shown beside the published score, but not judged: its source doesn't
  state at which size and over which runs it was computed.
  """
  measured = {(r.checkpoint, r.test_size): r.measured for r in found if r.measured is not None}
  runs = sorted({run[:2] for name, _ in measured if (run := released.vtab_run(name))})
  for (architecture, number), rule in itertools.product(runs, ("paper", "code")):
    keys = (
      (f"BiT-M-{architecture}-run{number}-{task}", f"{released.vtab_sizes(task)[rule]} square")
      for task in vtab.TASKS
    )
    values = [measured[key] for key in keys if key in measured]
    if not values:
      continue
    mean, comparison = statistics.mean(values), ""
    score = released.vtab_score(architecture)
    if score is not None and len(values) == len(vtab.TASKS):
      comparison = f"; expected {score.value:.2f}% ({score.source}), {mean - score.value:+.2f}"
    yield (
      f"BiT-M-{architecture} run {number}, sizes of {rule}: {mean:.2f}% over {len(values)} of "
      f"{len(vtab.TASKS)} tasks{comparison}"
    )


def require(found: Sequence[Row]) -> None:
  """Raises a `UserError` if nothing could be evaluated, or a difference is too large."""
  if all(row.verdict == "missing" for row in found):
    raise errors.UserError("Nothing could be evaluated; the reasons and remedies are listed above.")
  different = [row.checkpoint for row in found if row.verdict == "different"]
  if different:
    figures = phrases.counted(len(different), "figure")
    raise errors.UserError(
      f"Measured and published accuracy differ by more than {TOLERANCE:g} points plus rounding in "
      f"{figures}: {', '.join(sorted(set(different)))}."
    )


def write(path: pathlib.Path, found: Sequence[Row]) -> None:
  """Writes the rows as JSON or CSV, by the file's suffix, in one step."""
  records: list[dict[str, Any]] = [
    {**dataclasses.asdict(row), "difference": row.difference, "verdict": row.verdict}
    for row in found
  ]
  if path.suffix == ".json":
    run_folder.write_json(path, records)
  else:
    with files.replacing(path) as temporary:
      run_folder.write_csv(temporary, [list(records[0]), *(list(r.values()) for r in records)])


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv, needs_reader=False))
