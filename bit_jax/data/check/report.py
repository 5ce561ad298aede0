"""Output of `python -m bit_jax.data check`: the printed report, problems.csv, a contact sheet."""

import csv
import functools
import hashlib
import pathlib
import shlex
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np

from bit_jax import hyperrule
from bit_jax.data.check import contact_sheet, problems
from bit_jax.data.sources import class_naming, folder
from bit_jax.runtime import errors, files, paths, phrases

PROBLEMS = "problems.csv"
CONTACT_SHEET = "contact_sheet.png"
MODEL = "BiT-M-R50x1"  # the printed and drawn sizes are its sizes
_SHOWN = 10  # files of a kind, and classes, that are printed


def main(path: str, out: str | None) -> int:
  """Checks images, prints the report and writes the output files.

  Args:
    path: A folder or a CSV.
    out: Folder for `problems.csv` (every problem, fault and warning) and `contact_sheet.png` (if an
      image can be decoded); None for `runs/check-<name>-<hash of the path>`.

  Returns:
    Exit status: 0, or 1 if a run would stop.

  Raises:
    UserError: `path` doesn't exist or can't be understood, or `out` can't be written.
  """
  found = folder.find(path)
  into = paths.named(out) if out else _default_folder(paths.named(path).resolve())
  try:
    into.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f"The folder {into} can't be created: {e.strerror}. Choose another with --out."
    ) from None
  report = problems.check(found)
  write(report, into)
  print(render(report))
  written = [name for name in (PROBLEMS, CONTACT_SHEET) if (into / name).exists()]
  print("\n" + class_naming.escaped(f"Written to {into}: {' and '.join(written)}"))
  if not report.stops:
    argument = shlex.quote(f"--config=configs/folder.py:path={path}")
    command = class_naming.escaped(f"python -m bit_jax.train {argument}")
    print(f"\nTo train on these images:\n  {command}")
  return int(report.stops)


def _default_folder(images: pathlib.Path) -> pathlib.Path:
  digest = hashlib.sha256(str(images).encode("utf-8", "surrogateescape")).hexdigest()[:8]
  return pathlib.Path("runs") / f"check-{images.name.removesuffix('.csv') or 'root'}-{digest}"


def write(report: problems.Report, into: pathlib.Path) -> None:
  """Writes problems.csv and the contact sheet into a folder."""
  with (into / PROBLEMS).open("w", encoding="utf-8", errors="backslashreplace", newline="") as text:
    writer = csv.writer(text)
    writer.writerow(("problem", "file", "detail"))
    writer.writerows(("stops a run", "", sentence) for sentence in report.faults)
    writer.writerows(("warning", "", sentence) for sentence in report.warnings)
    writer.writerows(report.problems)
  (into / CONTACT_SHEET).unlink(missing_ok=True)
  if report.image_size:
    resize, crop = hyperrule.resolution(report.image_size, MODEL, "code")
    with files.optional(CONTACT_SHEET, functools.partial(print, file=sys.stderr)):
      contact_sheet.write(report, into / CONTACT_SHEET, resize=resize, crop=crop)


def render(report: problems.Report) -> str:
  """Returns a report as text: counts, sizes, the rule, and the first files of each problem."""
  total = sum(sum(c.values()) for c in report.counts.values())
  classes = {label for c in report.counts.values() for label in c}
  lines = [
    f"{report.found.source}: {phrases.counted(total, 'image')} in "
    f"{phrases.counted(len(classes), 'class', 'classes')}"
  ]
  if total:
    lines += ["", *_table(report), "", *_facts(report)]
  lines += _listed("Errors that stop a run", report, problems.STOPPING, report.faults)
  lines += _listed("Warnings", report, problems.DOUBTFUL, report.warnings)
  if not (report.faults or report.warnings or report.problems):
    lines += ["", "No problems found."]
  elif not report.stops:
    lines += ["", "No errors found."]
  return "\n".join(map(class_naming.escaped, lines))


def _table(report: problems.Report) -> list[str]:
  """Returns a line per class with its images in each part; of many classes, both ends."""
  parts = [p for p in ("train", "val", "test", "all") if p in report.counts]
  totals: Counter[str] = sum(report.counts.values(), Counter())
  names = sorted(totals)
  omitted = len(names) - 2 * _SHOWN
  if omitted > 0:
    names.sort(key=lambda n: -totals[n])
  width = max(12, *(len(n) for n in names))
  rows = [f"  {n:<{width}}" + "".join(f"{report.counts[p][n]:>9,}" for p in parts) for n in names]
  if omitted > 0:
    rows[_SHOWN:-_SHOWN] = [f"  ... {omitted:,} more classes ..."]
  sums = "".join(f"{sum(report.counts[p].values()):>9,}" for p in parts)
  header = " " * (width + 2) + "".join(f"{p:>9}" for p in parts)
  return [header, *rows, f"  {'all classes':<{width}}{sums}"]


def _facts(report: problems.Report) -> list[str]:
  """Returns lines on balance, sizes, the split and the rule."""
  counts = report.counts.get("train") or next(iter(report.counts.values()))
  most, least = counts.most_common()[0], counts.most_common()[-1]
  rows = {"balance": "all classes have the same number of images"}
  if most[1] > least[1]:
    rows["balance"] = (
      f"{most[1] / least[1]:.3g} : 1, from {most[0]} ({most[1]:,}) to {least[0]} ({least[1]:,})"
    )
  if report.image_size:
    rows["image size"] = "{} x {} pixels (median height x width)".format(*report.image_size)
    low, high = min(report.sizes, key=np.prod), max(report.sizes, key=np.prod)
    if low != high:
      rows["image size"] += f", from {low[0]} x {low[1]} to {high[0]} x {high[1]}"
  if origin := report.split.origin if report.split else " ".join(report.found.notes):
    rows["split"] = origin
  if report.split and report.image_size:
    rows["rule"] = _rule(len(report.split.train), report.image_size)
  return [f"  {name:<12}{text}" for name, text in rows.items()]


def _rule(num_train: int, image_size: tuple[int, int]) -> str:
  regime = hyperrule.regime(num_train)
  mixup = f"MixUp alpha {regime.mixup_alpha:g}" if regime.mixup_alpha else "no MixUp"
  resize, crop = hyperrule.resolution(image_size, MODEL, "code")
  return (
    f"{regime.name} regime ({num_train:,} training images): {regime.total_steps:,} steps, {mixup}; "
    f"resize {resize} -> crop {crop} pixels"
  )


def _listed(
  heading: str, report: problems.Report, kinds: dict[str, str], sentences: Iterable[str]
) -> list[str]:
  lines = [f"  {sentence}" for sentence in sentences]
  for kind, meaning in kinds.items():
    of_kind = [p for p in report.problems if p.kind == kind]
    if of_kind:
      lines.append(f"  {kind}: {len(of_kind):,} ({meaning})")
      lines += [f"    {p.path} {p.detail}".rstrip() for p in of_kind[:_SHOWN]]
    if len(of_kind) > _SHOWN:
      lines.append(f"    and {len(of_kind) - _SHOWN:,} more in {PROBLEMS}")
  return ["", f"{heading}:", *lines] if lines else []
