"""The run folder: its files, the run that it belongs to, and whether that run can be resumed."""

import contextlib
import csv
import datetime
import hashlib
import json
import operator
import pathlib
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import jax

from bit_jax.runtime import (
  errors,
  files,
  installation,
  json_text,
  machine,
  numerics,
  paths,
  phrases,
)

CONFIG, ENVIRONMENT, RESULT = "config.json", "environment.json", "result.json"
WEIGHTS, CLASSES = "model.npz", "classes.txt"
SPLIT, REPORT = "split.csv", "report.html"
# Types of fields that are computed with; users edit these files.
_TYPES: dict[str, dict[str, Any]] = {
  ENVIRONMENT: {
    "order": int,
    "resumed": list,
    "packages": dict,
    "variables": dict,
    "classes": dict,
  },
  RESULT: {"steps": int, "top1": float | int, "left_out": dict, "warnings": list},
}
CHECKPOINTS = "checkpoints"
_STEP = re.compile("[1-9][0-9]*")  # the name of a checkpoint
_FINISHING = ".finishing"  # exists while the last files are written
_RESULT_FIELDS = ("top1", "loss", "num_train", "num_test", "steps", "left_out", "warnings")
_TEST_IMAGES = "the test images"  # where weights are chosen without a validation part
_NOT_SET = "not set"  # shown for a field or variable without a value
_ANOTHER = "choose another --workdir"
# Packages that may change the numbers, and so are recorded.
_PACKAGES = ("bit_jax", "jax", "jaxlib", "flax", "optax", "numpy", "clu", "tensorflow-datasets")
_plain = operator.methodcaller("tolist")  # numpy's numbers and arrays as Python's
_COMPILERS = ("jax", "jaxlib")  # a resumed run reports other versions of these


def open_folder(workdir: str, *, create: bool = True, images: str | None = None) -> pathlib.Path:
  """Creates a run folder, unless it exists.

  Args:
    workdir: The path; '~' is the user's home.
    create: False only returns the path, as all processes but the first need it.
    images: The user's own images, if the run reads them.

  Returns:
    The absolute path.

  Raises:
    UserError: The folder can't be written, its path is not UTF-8, `~` is not a valid home folder in
      it, or it is inside the folder of images.
  """
  folder = paths.named(workdir).absolute()
  try:
    str(folder).encode()
  except UnicodeEncodeError as e:
    raise errors.UserError(
      f"The path of the run folder {folder} is not UTF-8, which checkpoints need: {_ANOTHER}."
    ) from e
  within = None if images is None else paths.named(images).resolve()
  if within is not None and within.is_dir() and folder.resolve().is_relative_to(within):
    raise errors.UserError(
      f"The run folder {folder} is inside the folder of images {within}, whose folders are read as "
      f"classes: {_ANOTHER} outside of it."
    )
  if create:
    files.open_folder(folder, f"The run folder {folder}", _ANOTHER)
  return folder


def lock(folder: pathlib.Path) -> contextlib.AbstractContextManager[IO[str]]:
  """Keeps other processes on this machine from running in the same folder, within a context.

  Raises:
    UserError: Another process runs in it, or its lock file can't be written.
  """

  def refuse() -> None:
    raise errors.UserError(
      f"Another process is running in {folder}: wait until it ends, or {_ANOTHER}."
    )

  return files.exclusive(folder / ".lock", refuse, f"make the folder writable, or {_ANOTHER}")


def record_config(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  identity: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> bool:
  """Writes `config.json`, or checks that the folder's run has the same config; needs the `lock`.

  Args:
    folder: The run folder.
    config: All fields.
    identity: Returns the fields of a config in which a resumed run must not differ.

  Returns:
    Whether the folder holds a run that was started before.

  Raises:
    UserError: The folder holds a run of another config, or one without a record of its config.
  """
  lacking = [name for name in (CONFIG, ENVIRONMENT) if not (folder / name).exists()]
  if lacking and saved_step(folder):
    raise errors.UserError(
      f"The run in {folder} can't be resumed: it has checkpoints but no "
      f"{' and no '.join(lacking)}, without which its config and data are unknown. Restore the "
      f"file, or delete the folder to start again."
    )
  # Without an environment, the run ended before its first step: weights or data were at fault.
  earlier = None if lacking else read_json(folder / CONFIG)
  if earlier is None:
    write_json(folder / CONFIG, config)
    return False
  if not earlier:
    raise errors.UserError(
      f"{folder / CONFIG} is empty or damaged: restore it, or delete the folder to start again."
    )
  now = json.loads(json.dumps(config, default=_plain))
  started_with, wanted = identity(earlier), identity(now)
  different = [k for k in sorted({*started_with, *wanted}) if started_with.get(k) != wanted.get(k)]
  if different:
    changes = ", ".join(
      f"{k}: {earlier.get(k, _NOT_SET)} there, {now.get(k, _NOT_SET)} now" for k in different
    )
    raise errors.UserError(
      f"The run folder {folder} holds a run of another config ({changes}): {_ANOTHER}, or delete "
      f"that run."
    )
  return True


def record_environment(folder: pathlib.Path, environment: Mapping[str, Any]) -> list[str]:
  """Writes `environment.json`; a resumed run adds a part to it.

  Returns:
    A sentence on each recorded variable or version of JAX that a resumed part changed.

  Raises:
    UserError: The run was started with other data, weights or dtype.
  """
  earlier = _read_record(folder / ENVIRONMENT)
  if earlier is None:
    write_json(folder / ENVIRONMENT, {**environment, "resumed": []})
    return []
  if earlier.get("order", 1) > environment.get("order", 1):
    raise errors.UserError(
      f"The run in {folder} was started by a newer version of bit_jax, with another order of the "
      f"training examples: resume it with that version, or {_ANOTHER}."
    )
  for name in ("chosen_on", "data", "weights_sha256", "dtype"):
    _require_same(folder, name, earlier.get(name), environment.get(name))
  _require_content(folder, earlier, environment.get("content"))
  part = {k: environment[k] for k in ("started", "machine", "device", "num_devices", "commit")}
  if changed := _changed(earlier, environment):
    part["changed"] = changed
  parts = [*earlier.get("resumed", ()), part]
  write_json(folder / ENVIRONMENT, {**earlier, "resumed": parts})
  return _changes(earlier, parts)


def _changed(earlier: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {name: value now} of what may change the rounding and differs from the run's start.

  Values that the run did not record at its start are not compared.
  """
  found: dict[str, Any] = {}
  for kind in ("variables", "packages"):
    before, now = earlier.get(kind), environment.get(kind)
    if before is not None and now is not None:
      names = {*before, *now} if kind == "variables" else _COMPILERS
      found |= {n: now.get(n) for n in sorted(names) if now.get(n) != before.get(n)}
  return found


def _changes(earlier: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> list[str]:
  """Returns a sentence on each change of the resumed parts of a run."""
  started_with = {**earlier.get("packages", {}), **earlier.get("variables", {})}
  changes = [change for part in parts for change in part.get("changed", {}).items()]
  return [
    f"This run was started with {name} {started_with.get(name, _NOT_SET)} and resumed with {name} "
    f"{_NOT_SET if value is None else value}: its numbers may differ from those of an "
    f"uninterrupted run."
    for name, value in dict.fromkeys(changes)
  ]


def order_version(folder: pathlib.Path) -> int:
  """Returns the version of the order (`order.VERSION`) that a folder's run was started with."""
  return int((_read_record(folder / ENVIRONMENT) or {}).get("order", 1))  # 1 was not recorded


def class_digests(names: Sequence[str]) -> dict[str, str]:
  """Returns digests of class names: 'names', whatever their order, and 'order', in their order."""
  return {
    key: hashlib.sha256("\n".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    for key, texts in (("names", sorted(names)), ("order", names))
  }


def require_class_order(folder: pathlib.Path, names: Sequence[str]) -> None:
  """Raises a `UserError` if class names are those of a run, but in another order.

  Earlier versions have not recorded their order. Names may be changed: a head has none.
  """
  recorded = (_read_record(folder / ENVIRONMENT) or {}).get("classes", {})
  now = class_digests(names)
  if recorded.get("names") == now["names"] and recorded.get("order") != now["order"]:
    raise errors.UserError(
      f"{folder / CLASSES} has the run's classes in another order than the outputs of its network: "
      f"restore the file."
    )


def has_digests(folder: pathlib.Path) -> bool:
  """Returns whether a folder's run was started by a version whose checkpoints have digests."""
  return bool((_read_record(folder / ENVIRONMENT) or {}).get("checkpoint_digests"))


def require_data(
  folder: pathlib.Path,
  version: str | None,
  chosen_on: str | None = None,
  content: str | None = None,
) -> None:
  """Raises a `UserError` if a run had another version of the data.

  It keeps a finished run's result from being reported for images that have changed since.

  Args:
    folder: The run folder.
    version: Identifies the data; None is not checked.
    chosen_on: Identifies the validation part; earlier versions have not recorded it.
    content: Identifies the content of image files; earlier versions have not recorded it.
  """
  earlier = _read_record(folder / ENVIRONMENT)
  if version is None or earlier is None:
    return
  _require_same(folder, "data", earlier.get("data"), version)
  if "chosen_on" in earlier:
    _require_same(folder, "chosen_on", earlier["chosen_on"], chosen_on)
  _require_content(folder, earlier, content)


def _require_content(folder: pathlib.Path, earlier: Mapping[str, Any], content: str | None) -> None:
  """Raises a `UserError` if a run recorded another content of its image files."""
  if earlier.get("content", content) != content:
    raise errors.UserError(
      f"The run in {folder} was started with other images: files of the same names and sizes have "
      f"other content now. Restore them, delete the folder to start again, or {_ANOTHER}."
    )


def _require_same(folder: pathlib.Path, name: str, before: Any, now: Any) -> None:
  """Raises a `UserError` if a run was started with another value of a field."""
  if before != now:
    if name == "chosen_on":
      name = "model selection on"
      before, now = before or _TEST_IMAGES, now or _TEST_IMAGES
    raise errors.UserError(
      f"The run in {folder} was started with {name} {before}, which is now {now}: delete the "
      f"folder to start again, or {_ANOTHER}."
    )


def saved_step(folder: pathlib.Path) -> int:
  """Returns the step of the newest checkpoint, 0 if there is none."""
  return max(checkpoint_steps(folder / CHECKPOINTS), default=0)


def checkpoint_steps(checkpoints: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints in a folder, which need not exist, in ascending order."""
  if not checkpoints.is_dir():
    return []
  return sorted(int(p.name) for p in checkpoints.iterdir() if _STEP.fullmatch(p.name))


def finished(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the result of a folder whose run is complete, or None."""
  return None if (folder / _FINISHING).exists() else _read_record(folder / RESULT)


@contextlib.contextmanager
def finishing(folder: pathlib.Path) -> Iterator[None]:
  """Within this context, the last files are written; a run that is killed in it is not finished.

  Some of them come after `result.json`.
  """
  (folder / _FINISHING).touch()
  yield
  (folder / _FINISHING).unlink(missing_ok=True)


def require_complete(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
  """Raises a `UserError` if a result lacks a field that every finished run has."""
  if lacking := [name for name in _RESULT_FIELDS if name not in result]:
    raise _damaged(folder / RESULT, f"it has no {', no '.join(lacking)}")


def describe_environment(**more: Any) -> dict[str, Any]:
  """Returns versions, devices and commit, with the fields of `more` added."""
  device = jax.devices()[0]
  return {
    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "python": platform.python_version(),
    "packages": {name: installation.version(name) for name in _PACKAGES},
    "machine": (
      f"{platform.system()} {platform.machine()}, {phrases.counted(machine.usable_cores(), 'core')}"
    ),
    "platform": device.platform,
    "device": device.device_kind,
    "num_devices": jax.device_count(),
    "num_processes": jax.process_count(),
    "variables": numerics.variables(),
    "commit": installation.commit(),
    "command": _command(),
    **more,
  }


def _command() -> str | None:
  """Returns the command line of `python -m bit_jax.train`; None in any other process."""
  words = sys.orig_argv[1:]
  return shlex.join(["python", *words]) if words[:2] == ["-m", "bit_jax.train"] else None


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file in one step: a reader finds either the whole file or none."""
  with files.replacing(path) as temporary:
    text = json.dumps(value, indent=2, default=_plain) + "\n"
    temporary.write_text(text, encoding="utf-8")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the object that a JSON file holds, or None if it doesn't exist.

  Raises:
    UserError: The file holds no JSON object.
  """
  try:
    found = json_text.parse(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return None
  except ValueError as e:
    raise _damaged(path, str(e)) from e
  if not isinstance(found, dict):
    raise _damaged(path, "it holds no JSON object")
  return found


def _read_record(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns what one of the run's own files holds; None if it doesn't exist."""
  found = read_json(path)
  for name, wanted in _TYPES[path.name].items():
    if found and name in found and not isinstance(found[name], wanted):
      raise _damaged(path, f"{name} is {found[name]!r:.40}")
  if found and path.name == ENVIRONMENT:
    for part in found.get("resumed", ()):
      changed = part.get("changed", {}) if isinstance(part, dict) else None
      if not isinstance(changed, dict) or any(isinstance(v, dict | list) for v in changed.values()):
        raise _damaged(path, f"resumed holds {part!r:.40}")
  return found


def _damaged(path: pathlib.Path, reason: str) -> errors.UserError:
  repair = "delete it and run the same command again"
  if path.name in (CONFIG, ENVIRONMENT):  # without them, a run can't be resumed
    repair = "restore it, or delete its folder to start again"
  return errors.UserError(f"{path} is damaged ({reason}): {repair}, or choose another folder.")


@contextlib.contextmanager
def optional_table(
  folder: pathlib.Path, name: str, say: Callable[[str], None]
) -> Iterator[pathlib.Path]:
  """Yields a temporary path, whose file becomes a table of the folder; warns if it can't.

  Raises:
    OSError: The disk is full, or fails: the table can be written later.
  """
  with (
    files.optional(name, say, if_there_is_room=True),
    files.replacing(folder / name) as temporary,
  ):
    yield temporary


def write_csv(path: pathlib.Path, rows: Iterable[Sequence[Any]]) -> None:
  """Writes a CSV file whose header is the first row."""
  with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
    csv.writer(file).writerows(rows)
