"""The kinds of input, each with its share of all inputs. What a kind reads is imported with it."""

import importlib

from experiments.reliability.fuzz import target

# {kind: (module, function, share)}
_KINDS = {
  "npz": ("checkpoint_files", "npz", 0.15),
  "safetensors": ("checkpoint_files", "safetensors_files", 0.06),
  "arrays": ("array_files", "images", 0.12),
  "images": ("pictures", "files", 0.21),
  "arguments": ("command_texts", "texts", 0.165),
  "csv": ("csv_files", "lists", 0.12),
  "run_folders": ("run_folders", "folders", 0.04),
  "tfrecords": ("record_files", "files", 0.12),
  "downloads": ("responses", "files", 0.015),
}
NAMES = tuple(_KINDS)


def load(name: str) -> target.Target:
  """Returns a kind of input."""
  module, function, _ = _KINDS[name]
  made: target.Target = getattr(
    importlib.import_module(f"experiments.reliability.fuzz.{module}"), function
  )()
  return made


def count(name: str, total: int) -> int:
  """Returns a kind's share of `total` inputs; the shares add up to about all."""
  return round(_KINDS[name][2] * total)
