"""What differs between the processes of a run, which must have the same everywhere."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from bit_jax.runtime import phrases

_SAME = "Start every process with the same command, files and versions."


def facts() -> dict[str, str]:
  """Returns what all processes must have in common before they know more: {what: value}."""
  found = {name: metadata.version(name) for name in ("jax", "jaxlib")}
  return {**found, "the code of bit_jax": f"sha256 {_code()[:12]}"}


def _code() -> str:
  """Returns a hash of the sources of the package."""
  root, found = pathlib.Path(__file__).parents[1], hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
  return found.hexdigest()


def sentence(values: Sequence[Mapping[str, Any]]) -> str | None:
  """Returns a sentence on what differs between processes; None if nothing does.

  Args:
    values: {what: value}, of each process.
  """
  found = []
  for name in dict.fromkeys(name for one in values for name in one):
    holders: dict[str, list[str]] = {}
    for index, one in enumerate(values):
      holders.setdefault(_shown(one.get(name)), []).append(str(index))
    if len(holders) > 1:
      texts = [f"{value} in {_named(which)}" for value, which in holders.items()]
      found.append(f"{name} is {' and '.join(texts)}")
  return f"The processes differ: {phrases.some(found)}. {_SAME}" if found else None


def _shown(value: Any) -> str:
  text = value if isinstance(value, str) else json.dumps(value)
  return "not set" if value is None else text


def _named(indices: Sequence[str]) -> str:
  return f"process{'es' if len(indices) > 1 else ''} {phrases.some(indices)}"
