"""Compares exports with their networks, each in its own runtime: `make exports`.

    python -m experiments.exports --torch_python=.venv-exports/bin/python

Each export is loaded in a process of its own by the code of its card, and classifies photos:
ONNX, SavedModel and StableHLO in this Python; timm and transformers in that of --torch_python. Then
that Python compares random networks with timm (`timm_round_trip`). Figures go to
experiments/exports/results.md; the logits of timm and transformers for scikit-learn's photos go to
tests/export/torch_logits.npz, with which a test compares where PyTorch isn't installed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata

import numpy as np

from bit_jax.inference import inputs
from experiments.benchmarks import machine
from experiments.exports import comparison

_ROOT = pathlib.Path(__file__).parents[2]
_RESULTS = _ROOT / "experiments/exports/results.md"
_LOGITS = _ROOT / "tests/export/torch_logits.npz"
_TOLERANCE = 1e-5  # of the largest logit
_PACKAGES = ("jax", "onnxruntime", "tensorflow_cpu", "tensorflow", "timm", "torch", "transformers")
_TEXT = """# Exports in their own runtimes

`make exports` writes this page. Each export was loaded in a process of its own by the code of its
model card, and classified {count} photos ({photos}).
The difference is that of two logits, relative to the largest logit of the photo, and the largest
over all photos. The networks: {trained} as trained, and an {random} of random numbers.

| network | format | runtime | largest difference |
|---|---|---|---|
{rows}

Random networks in timm's layout, from timm to this package and back (`python -m
experiments.exports.timm_round_trip`):

```text
{round_trip}
```

Machine: {machine}. Versions: {versions}.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Compares, and writes the results; returns the exit status: 1 if something differs."""
  parser = argparse.ArgumentParser(prog="python -m experiments.exports")
  add = parser.add_argument
  add("--torch_python", metavar="PYTHON", help="a Python that has timm, transformers and jax")
  add("--photos", metavar="FOLDER", help="photos; default: those of scikit-learn")
  add("--timm", default="", metavar="NAMES", help="networks of timm, comma-separated; default: all")
  args = parser.parse_args(argv)
  if args.torch_python:
    if not (found := shutil.which(args.torch_python)):
      parser.error(f"--torch_python: program not found: {args.torch_python}")
    args.torch_python = os.path.abspath(found)  # processes are started in other folders
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    photos = comparison.sample_photos(folder)
    stored = len(photos)
    if args.photos:
      photos += map(pathlib.Path, inputs.find([args.photos]).files.paths)
    compared = list(_compared(args.torch_python, photos, folder))
  if not args.torch_python:
    print("Without --torch_python, timm and transformers are left out and nothing is written.")
    return _status(compared)
  round_trip, status = _round_trip(args.torch_python, args.timm)
  _store(compared, stored)
  origin = "scikit-learn's" if len(photos) == stored else "scikit-learn's and others, full size"
  text = _TEXT.format(
    count=len(photos),
    photos=origin,
    trained=comparison.TRAINED,
    random=comparison.RANDOM,
    rows="\n".join(_rows(compared)),
    round_trip=round_trip,
    machine=machine.describe(),
    versions=", ".join(f"{k} {v}" for k, v in _versions(args.torch_python).items()),
  )
  _RESULTS.write_text(text, encoding="utf-8")
  return _status(compared) or status


def _compared(
  torch_python: str | None, photos: Sequence[pathlib.Path], folder: pathlib.Path
) -> Iterator[comparison.Compared]:
  """Yields and prints the comparison of each network and form that can be loaded."""
  for name in comparison.NETWORKS:
    for is_torch, python in ((False, sys.executable), (True, torch_python)):
      forms = [one for one in comparison.FORMS if (one.name in comparison.TORCH) == is_torch]
      if python:
        inner = folder / f"{name}-{is_torch}"
        for one in comparison.compare(name, forms, photos, inner, python):
          print(f"{one.network:20} {one.form.name:14} {one.difference:.1e}", flush=True)
          yield one


def _round_trip(torch_python: str, names: str) -> tuple[str, int]:
  """Runs `timm_round_trip`; returns what it printed, and its exit status."""
  command = [torch_python, "-m", "experiments.exports.timm_round_trip"]
  command += filter(None, names.split(","))
  environment, lines = {**os.environ, "PYTHONPATH": str(_ROOT)}, []
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout
    for line in process.stdout:
      print(line, end="", flush=True)
      lines.append(line)
  return "".join(lines).strip(), process.returncode


def _status(compared: Sequence[comparison.Compared]) -> int:
  return 0 if all(one.difference <= _TOLERANCE for one in compared) else 1


def _rows(compared: Sequence[comparison.Compared]) -> Iterator[str]:
  for one in compared:
    yield f"| {one.network} | {one.form.name} | {one.form.runtime} | {one.difference:.1e} |"


def _store(compared: Sequence[comparison.Compared], number: int) -> None:
  """Stores the logits of the first photos, and what identifies the files, for the tests."""
  arrays: dict[str, np.ndarray] = {}
  for one in compared:
    if one.form.name in comparison.TORCH:
      key = f"{one.form.name}/{one.network}"
      arrays |= {key: one.logits[:number], f"{key}/sha256": np.array(one.digest)}
  np.savez(_LOGITS, allow_pickle=False, **arrays)


def _versions(torch_python: str) -> dict[str, str]:
  return {
    "bit_jax": metadata.version("bit_jax"),
    **machine.versions(_PACKAGES, torch_python),
    **machine.versions(_PACKAGES),
  }


if __name__ == "__main__":
  sys.exit(main())
