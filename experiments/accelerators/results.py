"""The table of compiled programs: its records, and the page that shows them."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import files
from experiments.accelerators import cases, compiler, figures, targets, traffic
from experiments.benchmarks import roofline

Record = dict[str, Any]
_FOLDER = pathlib.Path(__file__).parent
PATH = _FOLDER / "results.jsonl"
_PAGE = _FOLDER / "results.md"
_PACKAGE = pathlib.Path(architectures.__file__).parents[1]
# What the programs are made of, and what chooses their micro-batches.
_SOURCES = (
  "hyperrule.py",
  "data/augmentation.py",
  "data/order.py",
  "inference/*metrics.py",
  "inference/footprint.py",
  "inference/programs.py",
  "models/*.py",
  "runtime/devices.py",
  "runtime/numerics.py",
  "runtime/parallel.py",
  "training/memory.py",
  "training/optimizer.py",
  "training/planning.py",
  "training/programs.py",
  "training/steps.py",
)
_PACKAGES = {"jax[cuda13]": ("jax", "jax-cuda13-plugin"), "jax[tpu]": ("jax", "libtpu")}
_TEXT = """# Programs compiled for accelerators

`make accelerators` writes this page: this package's programs, compiled by XLA for GPUs and TPUs on
a machine without them. It shows bytes and memory; no program ran, so it shows no speed.

- **images**: the micro-batch on each device that the memory planner chose, of {batch} images over
  all devices (evaluation: of 256); {whole} is the whole step as one program, {remat} recomputes
  activations.
- **arguments**, **temporaries**: memory of a device, by the compiler. The arguments of a whole step
  have the parameters and the velocity among them, those of a micro-batch the standardised kernels
  and the sums of gradients; the state is beside them.
- **fits**: what the step takes beside the state and the batches that wait (with micro-batches on
  several devices also at its end), of nine tenths of what JAX may use beside them; 'yes' if it fits
  and the next larger micro-batch does not. An evaluation's batch is chosen by arithmetic: a larger
  one may fit.
- On several hosts, as for 16 chips of TPU v5e, micro-batches are chosen by arithmetic, too.
- **TFLOP**: matrix operations of one execution on a device, by arithmetic, without those that are
  recomputed. **kernels** are of one execution, too: the instructions of the optimised program's
  entry computation, the start and the done of an asynchronous one each.
- **MB an image**: on GPU, the bytes of operands and results of all kernels
  (`experiments/accelerators/traffic.py`); on TPU, what the compiler counts as accessed. **ideal**:
  what a program moves in bfloat16 if each operation reads and writes its activations once
  (`experiments/benchmarks/roofline.py`); of a micro-batch, without the update at the end of the
  step. A compiler that keeps results on the chip from one operation to the next moves less: on TPU
  that is usual.
- **code** is a hash of the sources of the programs and of the planner.
- Programs for GPUs at 480 px are compiled without Triton's matrix products, for which XLA needs a
  GPU to tune on.

{tables}
"""
_WHOLE, _REMAT = "*", "r"
_TITLES = (
  "network",
  "px",
  "program",
  "images",
  "arguments",
  "temporaries",
  "fits",
  "TFLOP",
  "MB an image",
  "ideal",
  "of the ideal",
  "kernels",
)


def made_of(case: cases.Case, flags: str) -> Record:
  """Returns what a record of a case depends on.

  Args:
    case: The program.
    flags: XLA_FLAGS of its compilation.

  Returns:
    'code': a hash of the sources of programs and planner; 'counter': one of what counts bytes;
    'target': one of the accelerator's description; 'versions' of the compiler; 'flags'.

  Raises:
    UserError: The compiler is not installed.
  """
  target = targets.TARGETS[case.target]
  package = target.package
  try:
    versions = {name: metadata.version(name) for name in _PACKAGES[package]}
  except metadata.PackageNotFoundError as e:
    raise targets.missing(case.target, str(e)) from e
  code = [path for pattern in _SOURCES for path in sorted(_PACKAGE.glob(pattern))]
  counter = [pathlib.Path(m.__file__ or "") for m in (figures, roofline, traffic)]
  return {
    "code": _hash(*(path.read_bytes() for path in [*code, pathlib.Path(compiler.__file__)])),
    "counter": _hash(*(path.read_bytes() for path in counter)),
    "target": _hash(target.text.encode()),
    "versions": versions,
    "flags": flags,
  }


def _hash(*parts: bytes) -> str:
  return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def load() -> dict[cases.Case, Record]:
  """Returns the records of the table by their case."""
  lines = PATH.read_text(encoding="utf-8").splitlines() if PATH.exists() else []
  return {cases.Case(**record["case"]): record for record in map(json.loads, lines)}


def add(case: cases.Case, record: Record) -> None:
  """Adds a record to the table, or replaces it; another process may do so at the same time."""
  with files.exclusive(PATH.with_suffix(".lock"), lambda: None):
    save(load() | {case: record})


def save(records: Mapping[cases.Case, Record]) -> None:
  """Writes the records in the order of the table, and the page."""
  known = [case for case in cases.table() if case in records]
  known += [case for case in records if case not in known]
  lines = [json.dumps(records[case]) + "\n" for case in known]
  for path, text in ((PATH, "".join(lines)), (_PAGE, page([records[case] for case in known]))):
    with files.replacing(path) as temporary:
      temporary.write_text(text, encoding="utf-8")


def page(records: Sequence[Record]) -> str:
  """Returns the page of some records: a table for each target, and what is missing."""
  found = dict.fromkeys(map(_device, records))
  parts = [_table([r for r in records if _device(r) == device]) for device in found]
  known = {cases.Case(**record["case"]) for record in records}
  if missing := [case.name for case in cases.table() if case not in known]:
    parts.append("\n- ".join(["Not compiled yet:\n", *missing]))
  tables = "\n\n".join(parts)
  return _TEXT.format(batch=cases.BATCH, whole=_WHOLE, remat=_REMAT, tables=tables)


def _device(record: Record) -> tuple[str, int]:
  return record["case"]["target"], record["case"]["devices"]


def _table(records: Sequence[Record]) -> str:
  target, count = _device(records[0])
  kind = next((r["kind"] for r in records if "kind" in r), target)
  made = {
    ", ".join(f"{k} {v}" for k, v in {**r["versions"], "code": r["code"]}.items()) for r in records
  }
  heading = f"## {count} x {kind}\n\n{'; '.join(sorted(made))}"
  lines = [_TITLES, ["---"] * len(_TITLES), *map(_cells, records)]
  return "\n".join([heading, "", *(f"| {' | '.join(line)} |" for line in lines)])


def _cells(record: Record) -> list[str]:
  """Returns a row of a table."""
  case = cases.Case(**record["case"])
  program = case.program if case.dtype == "auto" else f"{case.program}, {case.dtype}"
  begin = [case.model, str(case.size), program]
  if error := record.get("error"):
    return [*begin, error, *[""] * (len(_TITLES) - len(begin) - 1)]
  ideal = record["ideal"] if record["dtype"] == "bfloat16" and not record["remat"] else None
  return [
    *begin,
    f"{record['images']}{_WHOLE * record['whole']}{_REMAT * record['remat']}",
    f"{record['arguments'] / 1e9:.2f} GB",
    f"{record['temporaries'] / 1e9:.2f} GB",
    f"{record['used'] / 1e9:.1f} of {record['budget'] / 1e9:.1f} GB: "
    + ("yes" if confirmed(record) else "**no**"),
    f"{flops(record) / 1e12:.2f}",
    f"{record['moved'] / 1e6:,.1f}",
    f"{ideal / 1e6:,.1f}" if ideal else "",
    f"{record['moved'] / ideal:.2f}" if ideal else "",
    f"{record['kernels']:,}",
  ]


def summary(record: Record) -> str:
  """Returns a record as one line."""
  if error := record.get("error"):
    return str(error)
  remark = "" if confirmed(record) else f" of {record['budget'] / 1e9:.1f} GB: the wrong size"
  return (
    f"{record['images']} images at once, {record['used'] / 1e9:.2f} GB{remark}, "
    f"{record['moved'] / 1e6:,.1f} MB an image, {record['kernels']:,} kernels"
  )


def confirmed(record: Record) -> bool:
  """Returns whether a program fits into its budget, and the next larger one does not."""
  larger = record["larger_used"]  # None: there is none, or the compiler refuses it
  return bool(record["used"] <= record["budget"] and (larger is None or larger > record["budget"]))


def flops(record: Record) -> float:
  """Returns the matrix operations of one execution on a device."""
  case, images, classes = record["case"], record["images"], record["classes"]
  factor = architectures.TRAINING_FACTOR if case["program"] == cases.TRAINING else 1
  architecture = architectures.find(case["model"])
  return factor * images * architectures.forward_flops(architecture, classes, case["size"])
