"""What is wrong with a user's own images, before a run finds out: every image is decoded once."""

import csv
import dataclasses
import functools
import hashlib
import os
import pathlib
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from bit_jax import hyperrule
from bit_jax.data import images, stream
from bit_jax.data.check import contact_sheet
from bit_jax.data.sources import class_naming, folder, scan
from bit_jax.runtime import errors, files, paths, phrases

PROBLEMS = "problems.csv"
CONTACT_SHEET = "contact_sheet.png"
MODEL = "BiT-M-R50x1"  # whose sizes are told and shown

# Kinds of problems, in the order in which they are told: {kind: what it means}. The first ones stop
# a run.
_SKIP = "; --config.on_bad_image=skip leaves them out"
STOPPING = {
  "missing": "named by the CSV, but not there",
  "empty class": "folders without images",
  "unreadable": f"no images, or with a damaged header{_SKIP}",
  "damaged": f"cut short or damaged behind the header{_SKIP}",
}
DOUBTFUL = {
  "leak": "the same image in two parts: what is scored was trained on",
  "contradiction": "the same image with two labels",
  "duplicate": "the same image twice in one part",
  "small": "shorter side below a tenth of the median one, or below 32 pixels and half of it",
  "elongated": "one side more than 4 times the other, where most are not",
  "no class": "images in no class folder, left out",
  "ignored": "files that are no images by their extension, left out",
}

_HARMLESS = "Nothing stops a run, but look at these"
_SHOWN = 10  # files of a kind, and classes, that are printed
_SMALL, _ELONGATED = 32, 4


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something about one file or folder.

  Attributes:
    kind: A key of `STOPPING` or `DOUBTFUL`.
    path: Relative to the root.
    detail: What about it; '' where the kind says all.
  """

  kind: str
  path: str
  detail: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found.

  Attributes:
    source: The folder or CSV that was checked.
    counts: {part: {class: images}}; without parts in the data, those of protocol=final.
    faults: Sentences on what stops a run, beside images that can't be decoded.
    problems: All of them, by kind.
    image_size: Median (height, width) in pixels; None if no image can be decoded.
    size_range: The smallest and the largest (height, width) by area; None likewise.
    origin: Sentences on how the data was read and where the split comes from; where something
      stops a run, only the former.
    warnings: Sentences, each on something that may be a mistake.
    num_train: Images that protocol=final trains on; 0 if nothing can be trained.
  """

  source: pathlib.Path
  counts: dict[str, Counter[str]]
  faults: tuple[str, ...]
  problems: tuple[Problem, ...]
  image_size: tuple[int, int] | None
  size_range: tuple[tuple[int, int], tuple[int, int]] | None
  origin: str
  num_train: int
  warnings: tuple[str, ...] = ()

  @property
  def stops(self) -> bool:
    """Whether a run on these images would stop."""
    return bool(self.faults) or any(p.kind in STOPPING for p in self.problems)


@dataclasses.dataclass(frozen=True)
class _Decoded:
  """What is left of an image after decoding it; digests are '' if that failed."""

  size: tuple[int, int] | None
  reason: str
  content: bytes
  pixels: bytes


def main(path: str, out: str | None) -> int:
  """Checks images, prints what was found and says where the lists and the picture lie.

  Args:
    path: A folder or a CSV.
    out: Folder to write to; None for `runs/check-<name>-<hash of the path>`.

  Returns:
    Exit status: 0, or 1 if something would stop a run.

  Raises:
    UserError: There is nothing at `path` that can be understood, or `out` can't be written.
  """
  whole = paths.named(path).resolve()
  digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
  name = f"check-{whole.name.removesuffix('.csv') or 'root'}-{digest}"
  into = paths.named(out) if out else pathlib.Path("runs") / name
  report = check(path, into)
  print(render(report))
  written = [n for n in (PROBLEMS, CONTACT_SHEET) if (into / n).exists()]
  print("\n" + class_naming.escaped(f"Written to {into}: {' and '.join(written)}"))
  if not report.stops:
    argument = shlex.quote(f"--config=configs/folder.py:path={path}")
    command = class_naming.escaped(f"python -m bit_jax.train {argument}")
    print(f"\nTo train on these images:\n  {command}")
  return int(report.stops)


def check(path: str, out: pathlib.Path) -> Report:
  """Decodes every image once and lists what is wrong; goes on where a run would stop.

  Args:
    path: A folder or a CSV, in a layout of `folder.find`.
    out: Folder for `problems.csv` (every problem, fault and warning) and `contact_sheet.png` (if
      there is an image).

  Returns:
    The report.

  Raises:
    UserError: There is nothing at `path` that can be understood, or `out` can't be written.
  """
  found = folder.find(path)
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f"The folder {out} can't be made: {e.strerror}. Choose another with --out."
    ) from None
  decoded = _decode_all(found)
  parts, faults, origin, num_train = _parts(found)
  sizes = [d.size for d in decoded if d.size]
  counts: dict[str, Counter[str]] = defaultdict(Counter)
  for entry, part in zip(found.entries, parts, strict=True):
    counts[part][entry.label] += 1
  report = Report(
    source=found.source,
    counts=dict(counts),
    faults=faults,
    problems=tuple(_problems(found, decoded, parts)),
    image_size=_median(sizes) if sizes else None,
    size_range=(min(sizes, key=np.prod), max(sizes, key=np.prod)) if sizes else None,
    origin=origin,
    num_train=num_train,
    warnings=found.warnings,
  )
  _write(out / PROBLEMS, report)
  with files.optional(CONTACT_SHEET, functools.partial(print, file=sys.stderr)):
    _draw(out / CONTACT_SHEET, found, decoded, report.image_size)
  return report


def render(report: Report) -> str:
  """Returns a report as text: counts, sizes, the rule, and the first files of each problem."""
  total = sum(sum(c.values()) for c in report.counts.values())
  classes = {label for c in report.counts.values() for label in c}
  lines = [
    f"{report.source}: {phrases.counted(total, 'image')} in "
    f"{phrases.counted(len(classes), 'class', 'classes')}"
  ]
  if total:
    lines += ["", *_table(report), "", *_facts(report)]
  lines += _listed("These stop a run", report, STOPPING, report.faults)
  heading = "These don't, but look at them" if report.stops else _HARMLESS
  lines += _listed(heading, report, DOUBTFUL, report.warnings)
  if not (report.faults or report.warnings or report.problems):
    lines += ["", "Nothing is wrong."]
  return "\n".join(map(class_naming.escaped, lines))


def _decode_all(found: scan.Scan) -> list[_Decoded]:
  def decode(entry: scan.Entry) -> _Decoded:
    try:
      data = (found.root / entry.path).read_bytes()
      pixels = images.decode(data)
    except OSError as e:
      return _Decoded(None, f"can't be opened ({e.strerror})", b"", b"")
    except images.Unreadable as e:
      return _Decoded(None, str(e), b"", b"")
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    height, width, _ = pixels.shape
    return _Decoded((height, width), "", hashlib.sha256(data).digest(), digest.digest())

  return list(stream.in_threads(decode, found.entries, "Decoding"))


def _parts(found: scan.Scan) -> tuple[list[str], tuple[str, ...], str, int]:
  """Returns each entry's part, the faults, where the split comes from, and how many train."""
  told = [e.part or "all" for e in found.entries]
  if found.missing and not found.entries:
    return told, (), " ".join(found.notes), 0
  whole = dataclasses.replace(found, empty=(), missing=())  # these two are listed as problems
  faults = scan.faults(whole)
  if faults:
    return told, tuple(faults), " ".join(found.notes), 0
  try:
    described = folder.split(whole, "final")
  except errors.UserError as e:
    return told, (str(e),), " ".join(found.notes), 0
  if "all" in told:
    scored = set(described.test.paths)
    told = ["test" if e.path in scored else "train" for e in found.entries]
  return told, (), described.origin, described.num_train


def _problems(found: scan.Scan, decoded: list[_Decoded], parts: list[str]) -> list[Problem]:
  problems = [Problem("missing", p, f"line {found.lines[p]}") for p in found.missing]
  problems += [Problem("empty class", p) for p in found.empty]
  problems += _broken(found, decoded)
  problems += _copies(found, decoded, parts)
  problems += _odd_sizes(found, decoded)
  problems += [Problem("no class", p) for p in found.unclassified]
  problems += [Problem("ignored", p) for p in found.ignored]
  order = [*STOPPING, *DOUBTFUL]
  return sorted(problems, key=lambda p: (order.index(p.kind), p.path))


def _broken(found: scan.Scan, decoded: list[_Decoded]) -> Iterable[Problem]:
  for entry, result in zip(found.entries, decoded, strict=True):
    if result.reason:
      try:
        images.size(found.root / entry.path)
      except images.Unreadable:
        yield Problem("unreadable", entry.path, result.reason)
      else:
        yield Problem("damaged", entry.path, result.reason)


def _copies(found: scan.Scan, decoded: list[_Decoded], parts: list[str]) -> Iterable[Problem]:
  """Compares each image with the first of the same pixels, and with the first in another part."""
  groups: dict[bytes, list[int]] = defaultdict(list)
  for i, result in enumerate(decoded):
    if result.pixels:
      groups[result.pixels].append(i)
  for group in groups.values():
    # Training images first: what is scored is then said to be a copy of them.
    group.sort(key=lambda i: (parts[i] != "train", found.entries[i].path))
    in_part = {parts[group[0]]: group[0]}  # the first of the group in each part,
    of_label = {found.entries[group[0]].label: group[0]}  # and of each label
    for i in group[1:]:
      label = found.entries[i].label
      other = next((j for part, j in in_part.items() if part != parts[i]), group[0])
      contradicted = next((j for name, j in of_label.items() if name != label), None)
      in_part.setdefault(parts[i], i)
      of_label.setdefault(label, i)
      same = "byte for byte" if decoded[i].content == decoded[other].content else "pixel for pixel"
      detail = f"is {same} {found.entries[other].path}"
      kind = "leak" if parts[other] != parts[i] else "duplicate"
      yield Problem(kind, found.entries[i].path, detail)
      if contradicted is not None:
        first = found.entries[contradicted]
        yield Problem(
          "contradiction", found.entries[i].path, f"is {label}, but {first.label} as {first.path}"
        )


def _odd_sizes(found: scan.Scan, decoded: list[_Decoded]) -> Iterable[Problem]:
  sides = {e.path: d.size for e, d in zip(found.entries, decoded, strict=True) if d.size}
  if not sides:
    return
  median = np.median([min(s) for s in sides.values()])
  ratio = np.median([max(s) / min(s) for s in sides.values()])
  for path, (height, width) in sides.items():
    shorter, detail = min(height, width), f"{height} x {width} pixels"
    if shorter < median / 10 or shorter < min(_SMALL, median / 2):
      yield Problem("small", path, detail)
    if max(height, width) > _ELONGATED * shorter and ratio <= _ELONGATED:
      yield Problem("elongated", path, detail)


def _median(sizes: list[tuple[int, int]]) -> tuple[int, int]:
  height, width = np.median(np.array(sizes), axis=0)
  return int(height), int(width)


def _write(file: pathlib.Path, report: Report) -> None:
  with file.open("w", encoding="utf-8", errors="backslashreplace", newline="") as text:
    writer = csv.writer(text)
    writer.writerow(("problem", "file", "detail"))
    writer.writerows(("stops a run", "", sentence) for sentence in report.faults)
    writer.writerows(("warning", "", sentence) for sentence in report.warnings)
    writer.writerows((p.kind, p.path, p.detail) for p in report.problems)


def _draw(
  picture: pathlib.Path,
  found: scan.Scan,
  decoded: list[_Decoded],
  image_size: tuple[int, int] | None,
) -> None:
  """Draws some images of every class, or of as many classes as fit."""
  picture.unlink(missing_ok=True)
  if image_size is None:
    return
  resize, crop = hyperrule.resolution(image_size, MODEL, "code")
  by_class: dict[str, list[scan.Entry]] = defaultdict(list)
  for entry, result in zip(found.entries, decoded, strict=True):
    if result.size:
      by_class[entry.label].append(entry)
  chosen = _evenly(by_class)
  contact_sheet.write(
    (images.decode(found.root / e.path) for e in chosen),
    [e.label for e in chosen],
    picture,
    title=found.root.name,
    resize=resize,
    crop=crop,
  )


def _evenly(by_class: dict[str, list[scan.Entry]]) -> list[scan.Entry]:
  """Returns what fits on the sheet, as many of each class as of others, class by class."""
  names = sorted(by_class)
  if len(names) > contact_sheet.MOST:
    places = np.linspace(0, len(names) - 1, contact_sheet.MOST).round().astype(int)
    return [by_class[names[i]][0] for i in places]
  ranked = [(rank, e) for n in names for rank, e in enumerate(by_class[n])]
  first = sorted(ranked, key=lambda pair: pair[0])[: contact_sheet.MOST]
  return [e for _, e in sorted(first, key=lambda pair: (pair[1].label, pair[0]))]


def _table(report: Report) -> list[str]:
  """Returns a line a class with its images in each part; of many classes the ends."""
  parts = [p for p in ("train", "val", "test", "all") if p in report.counts]
  totals: Counter[str] = sum(report.counts.values(), Counter())
  names = sorted(totals)
  if len(names) > 2 * _SHOWN:
    names.sort(key=lambda n: -totals[n])
    gap = f"  ... {len(names) - 2 * _SHOWN:,} classes between these ..."
  width = max(12, *(len(n) for n in names), len("all classes"))
  rows = [f"  {n:<{width}}" + "".join(f"{report.counts[p][n]:>9,}" for p in parts) for n in names]
  if len(names) > 2 * _SHOWN:
    rows = [*rows[:_SHOWN], gap, *rows[-_SHOWN:]]
  sums = [sum(report.counts[p].values()) for p in parts]
  return [
    " " * (width + 2) + "".join(f"{p:>9}" for p in parts),
    *rows,
    f"  {'all classes':<{width}}" + "".join(f"{n:>9,}" for n in sums),
  ]


def _facts(report: Report) -> list[str]:
  """Returns lines on balance, sizes, the split and the rule."""
  counts = report.counts.get("train") or next(iter(report.counts.values()))
  most, least = counts.most_common()[0], counts.most_common()[-1]
  rows = {"balance": "every class has as many images"}
  if most[1] > least[1]:
    rows["balance"] = (
      f"{most[1] / least[1]:.3g} : 1, from {most[0]} ({most[1]:,}) to {least[0]} ({least[1]:,})"
    )
  if report.image_size and report.size_range:
    rows["image size"] = "{} x {} pixels (median height x width)".format(*report.image_size)
    if report.size_range[0] != report.size_range[1]:
      low, high = report.size_range
      rows["image size"] += f", from {low[0]} x {low[1]} to {high[0]} x {high[1]}"
  if report.origin:
    rows["split"] = report.origin
  if report.num_train and report.image_size:
    rows["rule"] = _rule(report.num_train, report.image_size)
  return [f"  {name:<12}{text}" for name, text in rows.items()]


def _rule(num_train: int, image_size: tuple[int, int]) -> str:
  regime = hyperrule.regime(num_train)
  size = ("small", "medium", "large")[hyperrule.REGIMES.index(regime)]
  mixup = f"MixUp alpha {regime.mixup_alpha:g}" if regime.mixup_alpha else "no MixUp"
  resize, crop = hyperrule.resolution(image_size, MODEL, "code")
  return (
    f"{num_train:,} to train on is the {size} regime: {regime.total_steps:,} steps, {mixup}; "
    f"resize {resize} -> crop {crop} pixels"
  )


def _listed(
  heading: str, report: Report, kinds: dict[str, str], sentences: tuple[str, ...]
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
