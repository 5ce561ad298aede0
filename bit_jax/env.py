"""Prints what a bug report needs: `python -m bit_jax.env`."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from bit_jax.runtime import cache, device_probe, exits, installation, phrases, system

_SECONDS = 60.0  # that JAX may take to start its devices
_WIDTH, _INDENT = 100, 14


def main(argv: Sequence[str]) -> None:
  """Prints the report of a command line as text or JSON."""
  parser = argparse.ArgumentParser(
    prog="python -m bit_jax.env",
    description="Prints what a bug report needs: versions, system, devices and settings. Passwords "
    "in URLs are hidden.",
  )
  parser.add_argument("--json", action="store_true", help="print a JSON object")
  options = parser.parse_args(argv[1:])
  found = report()
  print(json.dumps(found, indent=2) if options.json else text(found))


def report(seconds: float = _SECONDS) -> dict[str, Any]:
  """Returns all facts by name; of one that can't be found, why.

  Args:
    seconds: How long JAX may take to start its devices.
  """
  facts: dict[str, Callable[[], Any]] = {
    "bit_jax": _version,
    "python": system.python,
    "system": system.operating_system,
    "processor": system.processor,
    "cores": system.cores,
    "memory": system.memory,
    "accelerators": system.accelerators,
    "jax": lambda: device_probe.ask(seconds),
    "cache": _cache,
    "packages": installation.versions,
    "variables": installation.variables,
  }
  return {name: _fact(find) for name, find in facts.items()}


def _fact(find: Callable[[], Any]) -> Any:
  try:
    return find()
  except Exception as e:  # a broken installation is what is reported
    return f"unknown ({type(e).__name__}: {e})"


def _version() -> str:
  commit = installation.commit()
  version = installation.version("bit_jax") or "not installed"
  return f"{version}, {f'commit {commit}' if commit else 'not a checkout'}"


def _cache() -> str:
  folder = cache.directory()
  return f"{folder}, {phrases.file_size(system.free_space(folder))} free"


def text(found: dict[str, Any]) -> str:
  """Returns the facts of `report` as one block of text."""
  rows = {**found, "accelerators": found["accelerators"] or "no driver of a GPU or TPU was found"}
  if isinstance(rows["jax"], dict):
    rows["jax"] = [f"{name}: {_plain(value)}" for name, value in rows["jax"].items()]
  return "\n".join(_row(name, value) for name, value in rows.items())


def _row(name: str, value: Any) -> str:
  """Returns one fact; versions share lines, variables have one each."""
  if name == "packages" and isinstance(value, dict):
    value = ", ".join(f"{package} {version}" for package, version in value.items())
  elif isinstance(value, dict):
    value = [f"{variable}={setting}" for variable, setting in value.items()]
  lines = value if isinstance(value, list) else [str(value)]
  width = _WIDTH - _INDENT
  parts = [
    p for line in lines or ["none"] for p in textwrap.wrap(line, width, break_on_hyphens=False)
  ]
  return textwrap.indent("\n".join(parts), " " * _INDENT).replace(" " * len(name), name, 1)


def _plain(value: Any) -> str:
  if isinstance(value, dict):
    return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None) or "default"
  return str(value)


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
