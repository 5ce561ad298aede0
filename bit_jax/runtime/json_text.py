"""JSON that anybody may have written."""

import json
from typing import Any

_DEEPEST = 50  # levels; Python's recursion limit would end what prints or compares deeper ones


def parse(text: str) -> Any:
  """Returns the value of a JSON text.

  Raises:
    ValueError: It is no JSON, or is nested deeper than 50 levels.
  """
  try:
    found = json.loads(text)
  except RecursionError:
    raise ValueError("it is nested too deeply") from None
  _require_shallow(found, _DEEPEST)
  return found


def _require_shallow(value: Any, levels: int) -> None:
  """Raises a `ValueError` if a value is nested deeper than so many levels."""
  if not isinstance(value, dict | list):
    return
  if not levels:
    raise ValueError("it is nested too deeply")
  for inner in value.values() if isinstance(value, dict) else value:
    _require_shallow(inner, levels - 1)
