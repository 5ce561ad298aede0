"""The record of a checkpoint: what it holds, with a SHA-256 of every array and of the record."""

import concurrent.futures
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bit_jax.runtime import json_text, machine

_MOST_THREADS = 8  # that compute digests; more wait for the memory
_SEAL = "sha256"  # of the rest of the record
_PARTS = {"step", "run", "progress", "arrays"}
_EARLIER = {"seconds", "timed_steps"}  # all that versions up to 0.2 recorded


class UnusableError(Exception):
  """A checkpoint can't be resumed from; the message is the reason, as a part of a sentence."""


def make(step: int, run: str, progress: Mapping[str, Any], state: Any) -> dict[str, Any]:
  """Returns the record of a state; plain JSON.

  Args:
    step: Steps done.
    run: Identifies the run.
    progress: Numbers and lists of numbers that are saved with the state.
    state: Tree of numpy arrays.
  """
  digests = _digests(state)
  arrays = {name: [kind, digests[name]] for name, kind in _kinds(state).items()}
  record = {"step": step, "run": run, "progress": dict(progress), "arrays": arrays}
  return {**record, _SEAL: _seal(record)}


def parse(text: bytes) -> dict[str, Any]:
  """Returns the record that a file holds.

  Raises:
    UnusableError: It is neither a whole record nor one of an earlier version.
  """
  try:
    record = json_text.parse(text.decode())
  except ValueError as e:
    raise UnusableError("its record is no JSON") from e
  if is_earlier(record):
    return dict(record)
  whole = isinstance(record, dict) and record.keys() == {*_PARTS, _SEAL}
  if not whole or record[_SEAL] != _seal({k: record[k] for k in _PARTS}):
    raise UnusableError("its record differs from the record's SHA-256")
  return dict(record)


def is_earlier(record: Any) -> bool:
  """Returns whether a record is one of version 0.2 or before, which had no digests.

  A record that lost its digests by damage is not: those versions wrote exactly two numbers.
  """
  if not isinstance(record, dict) or record.keys() != _EARLIER:
    return False
  return all(type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in record.values())


def require_fitting(record: Mapping[str, Any], step: int, run: str, like: Any) -> None:
  """Raises an `UnusableError` if a record is of another step, run or network.

  Args:
    record: One with digests.
    step: The step that the checkpoint's folder is named after.
    run: Identifies the run.
    like: A state of the run: tree of arrays.
  """
  if record["step"] != step:
    raise UnusableError(f"it holds the state after step {record['step']}")
  there, wanted = {name: kind for name, (kind, _) in record["arrays"].items()}, _kinds(like)
  for name in sorted({*there, *wanted}):
    if there.get(name) != wanted.get(name):
      raise UnusableError(
        f"it is of another network: {name} is {there.get(name, 'missing')} there and "
        f"{wanted.get(name, 'missing')} in this run"
      )
  if record["run"] != run:
    raise UnusableError("it is of a run with another config, other data or other weights")


def require_intact(record: Mapping[str, Any], state: Any) -> None:
  """Raises an `UnusableError` if an array differs from its digest.

  Args:
    record: One with digests, that fits the state.
    state: Tree of numpy arrays, as restored.
  """
  digests = _digests(state)
  wrong = [name for name, (_, digest) in record["arrays"].items() if digests.get(name) != digest]
  if wrong:
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    raise UnusableError(f"{wrong[0]}{more} differs from its SHA-256")


def _seal(record: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _named(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, such as 'params/head/conv2d/kernel'."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _kinds(tree: Any) -> dict[str, str]:
  """Returns dtype and shape of each array, such as 'float32[3, 5]'."""
  return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(tree).items()}


def _digests(tree: Any) -> dict[str, str]:
  """Returns the SHA-256 of each array's bytes, computed in threads: hashlib releases the GIL."""
  named = _named(tree)
  with concurrent.futures.ThreadPoolExecutor(min(_MOST_THREADS, machine.usable_cores())) as pool:
    return dict(zip(named, pool.map(_digest, named.values()), strict=True))


def _digest(array: np.ndarray) -> str:
  flat = np.ascontiguousarray(array).reshape(-1)
  return hashlib.sha256(flat.view(np.uint8).data).hexdigest()
