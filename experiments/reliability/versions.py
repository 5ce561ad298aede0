"""Imports every module and runs the tests that aren't slow, with the versions of this Python.

    .venv-oldest/bin/python -m experiments.reliability.versions oldest [--record] [PATHS]

With --record, versions and counts go to experiments/reliability/versions.jsonl, and the page that
shows them is written again.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits
from experiments.reliability import page, records

_ROOT = pathlib.Path(__file__).parents[2]
# What libraries say about each other's versions, or leave open, is not about this project.
_OTHERS = (
  "default::DeprecationWarning",
  "default::ResourceWarning",
  "default:Protobuf:UserWarning",
)
_IMPORTS = """
import importlib, pkgutil, bit_jax
for module in pkgutil.walk_packages(bit_jax.__path__, "bit_jax."):
  if not module.name.endswith("__main__"):
    importlib.import_module(module.name)
"""
_COUNTS = ("passed", "failed", "skipped")


def main(argv: Sequence[str]) -> int:
  """Runs the tests of a command line; returns pytest's exit status.

  Raises:
    UserError: A module can't be imported.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.reliability.versions",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("kind", help="the name of these versions, such as oldest or newest")
  parser.add_argument("paths", nargs="*", default=["tests"], help="of tests; default: all")
  parser.add_argument("--record", action="store_true", help=f"write {page.VERSIONS.name}, the page")
  options = parser.parse_intermixed_args(argv[1:])
  if subprocess.run([sys.executable, "-c", _IMPORTS], cwd=_ROOT, check=False).returncode:
    raise errors.UserError("Not every module can be imported with these versions.")
  command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *options.paths]
  command += [word for warning in _OTHERS for word in ("-W", warning)]
  ran = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
  assert ran.stdout is not None
  last = ""
  for line in ran.stdout:
    print(line, end="", flush=True)
    last = line
  status = ran.wait()
  if options.record:
    tests = "all" if options.paths == ["tests"] else " ".join(options.paths)
    _record({"kind": options.kind, "tests": tests, **records.made(), **counts(last)})
  return status


def counts(line: str) -> dict[str, int]:
  """Returns the counts of pytest's last line, such as '1 failed, 99 passed in 3.2s'."""
  found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", line)}
  found["failed"] = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
  return {name: found.get(name, 0) for name in _COUNTS}


def _record(record: page.Record) -> None:
  """Replaces the record of the same kind, and writes the page."""
  kept = [known for known in page.read(page.VERSIONS) if known["kind"] != record["kind"]]
  lines = [json.dumps(known) + "\n" for known in (*kept, record)]
  page.VERSIONS.write_text("".join(lines), encoding="utf-8")
  page.write()


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
