"""What all command lines share: a user's mistake ends in one sentence, and so does Ctrl-C."""

import difflib
import errno
import glob
import inspect
import os
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import flags
from ml_collections import config_flags

from bit_jax.runtime import errors, output, paths, signals

MISTAKE, INTERRUPTED = 2, 130  # exit statuses
_DEFECT = "This is a defect of bit_jax, or of a library: please report it with the lines above."
# Errors of disks, file systems, permissions, limits and network storage.
_OF_THE_MACHINE = frozenset(
  getattr(errno, name)
  for name in (
    *(
      "EACCES",
      "EBUSY",
      "EDQUOT",
      "EFBIG",
      "EHOSTDOWN",
      "EIO",
      "EISDIR",
      "ELOOP",
      "EMFILE",
      "EMLINK",
    ),
    *("ENAMETOOLONG", "ENFILE", "ENODEV", "ENOLCK", "ENOMEM", "ENOSPC", "ENOTCONN", "ENXIO"),
    *("EPERM", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT", "EUCLEAN"),
  )
  if hasattr(errno, name)
)
_TENSORSTORE_ERROR = re.compile(r"os_error_code='(\d+)'")  # the library that writes checkpoints
# Arguments of config files, as flags and fields are mistaken for them.
_ARGUMENTS = frozenset(
  (
    *("crop", "flip", "microbatch", "model", "path", "preset", "protocol", "resolution", "seed"),
    *("shots", "task", "weights"),
  )
)
_OTHERWISE_AN_ARGUMENT = frozenset(("crop",))  # the field of this name is another thing
# {name that other programs give it: field}
_OTHER_NAMES = {
  **dict.fromkeys(("learning_rate", "lr", "base_learning_rate"), "base_lr"),
  **dict.fromkeys(("epochs", "num_epochs", "steps", "max_steps", "num_steps"), "total_steps"),
  **dict.fromkeys(("batch", "bs", "train_batch_size"), "batch_size"),
  **dict.fromkeys(("image_size", "img_size", "imgsz", "input_size", "size"), "resize and crop"),
  **dict.fromkeys(("augment", "augmentation"), "random_crop and random_flip"),
  **dict.fromkeys(("flip", "hflip"), "random_flip"),
  **dict.fromkeys(("mixup", "mix_up"), "mixup_alpha"),
  **dict.fromkeys(("warmup", "warmup_epochs"), "warmup_steps"),
  **dict.fromkeys(("checkpoint", "pretrained", "init"), "weights"),
  **dict.fromkeys(("data", "path", "data_root"), "data_path"),
  **dict.fromkeys(("arch", "architecture", "network"), "model"),
  "early_stopping": "patience",
}
_DATA_FILES = (".csv", ".tsv", ".npz")
_KINDS = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  tuple: "numbers in brackets, such as (200,300,400)",
}


def run(
  main: Callable[[Sequence[str]], int | None], argv: Sequence[str], *, needs_reader: bool = True
) -> int:
  """Calls `main(argv)` and returns the exit status; prints mistakes without a traceback.

  Args:
    main: Returns the exit status; None is 0.
    argv: The program's name, then its arguments.
    needs_reader: Whether the command's work is what it prints: it ends, quietly, when nobody reads
      that any more. Others, which write files, go on.
  """
  output.prepare()
  with output.surviving(*(("stderr",) if needs_reader else ("stdout", "stderr"))):
    status = _run(main, argv, needs_reader)
  output.finish()
  return status


def _run(
  main: Callable[[Sequence[str]], int | None], argv: Sequence[str], needs_reader: bool
) -> int:
  try:
    status = main(argv) or 0
    sys.stdout.flush()
    return status
  except errors.UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return MISTAKE
  except signals.Interrupted as e:
    print(e, file=sys.stderr)
    return INTERRUPTED
  except KeyboardInterrupt:
    print("Interrupted; what was not saved before is lost.", file=sys.stderr)
    return INTERRUPTED
  except Exception as e:
    if needs_reader and isinstance(e, BrokenPipeError):  # `... | head`
      output.discard(sys.stdout)
      return 0
    if (sentence := machine_trouble(e)) is None:
      e.add_note(_DEFECT)
      raise
    print(f"error: {sentence}", file=sys.stderr)
    return MISTAKE


def machine_trouble(error: Exception) -> str | None:
  """Returns a sentence if an error is the machine's and not this code's: a disk, a device.

  Any other `OSError`, such as of a file that isn't there, is a defect.
  """
  number, file = getattr(error, "errno", None), getattr(error, "filename", None)
  if found := _TENSORSTORE_ERROR.search(str(error)):
    number = int(found[1])
    file = path[1] if (path := re.search(r'"(/[^"]+)"', str(error))) else None
  if number is not None and number in _OF_THE_MACHINE:
    where = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes) else ""
    return f"{where}{os.strerror(number)}. Fix this, then run the same command again."
  if isinstance(error, AssertionError | RuntimeError):  # what JAX raises where it has no device
    return _device_mistake()
  return None


def _device_mistake() -> str | None:
  """Returns a sentence if JAX is in use and has no device, which leads to any error; else None."""
  if "jax" not in sys.modules:  # it takes seconds to import, and most commands need no device
    return None
  from bit_jax.runtime import platforms

  try:
    platforms.require()
  except errors.UserError as e:
    return str(e)
  return None


def leave(status: int) -> NoReturn:
  """Ends the process; after Ctrl-C without waiting for threads, which may compile or download."""
  if status == INTERRUPTED:
    output.finish()
    os._exit(status)
  sys.exit(status)


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
  """Parses a command line whose flags, `config` among them, are defined on `flag_values`.

  Args:
    flag_values: The flags.
    argv: The program's name, then its arguments.

  Raises:
    UserError: An unknown flag, a config file that isn't there, or a field or value that it doesn't
      have.
  """
  _find_config_file(argv)
  _require_plain_fields(argv)
  try:
    rest = flag_values(argv)[1:]
  except (AttributeError, KeyError) as e:
    raise errors.UserError(_unknown_field(argv)) from e
  except flags.UnrecognizedFlagError as e:
    raise errors.UserError(_unknown_flag(argv, e)) from e
  except flags.IllegalFlagValueError as e:
    raise errors.UserError(_root_mistake(e) or _bad_value(argv, e)) from e
  except (flags.Error, TypeError, ValueError) as e:
    raise errors.UserError(_root_mistake(e) or f"{one_line(e)}.") from e
  if rest:
    if advice := _advice_on_data(rest[0]):
      raise errors.UserError(f"{rest[0]!r} is no flag: {advice}")
    raise errors.UserError(f"What is {rest[0]!r}? Flags begin with two dashes: --config=FILE.")


def define_config(flag_values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagHolder[Any]:
  """Defines `--config=FILE[:key=value,...]` with `--config.field=value` overrides.

  Raises:
    UserError: A file of flags can't be opened.
  """
  try:
    holder = config_flags.DEFINE_config_file(
      "config",
      None,
      "the config file, with arguments after a colon",
      flag_values=flag_values,
      sys_argv=list(argv),
    )
  except flags.CantOpenFlagFileError as e:  # of --flagfile, which absl itself defines
    raise errors.UserError(f"{one_line(e).removeprefix('ERROR:: ')}.") from e
  flag_values["config"].parser = _ConfigFileParser()
  return holder


class _ConfigFileParser(flags.ArgumentParser):
  """Loads a config file; the parser of `config_flags` hides where it fails."""

  def parse(self, argument: str) -> ml_collections.ConfigDict:
    """Returns the config of FILE or FILE:ARGUMENTS, locked.

    Raises:
      UserError: The file isn't Python, fails, or gives no config.
    """
    file, *rest = argument.split(":", 1)
    try:
      config = _get_config(file, rest)(*rest)
    except errors.UserError:
      raise
    except (Exception, SystemExit) as e:
      raise failure("config file", file, e) from e
    if type(config) is not ml_collections.ConfigDict:  # a frozen one takes no overrides
      raise errors.UserError(
        f"get_config() of the config file {file} returns a {type(config).__name__}, and must "
        f"return a ConfigDict, such as that of configs/base.py."
      )
    config.lock()
    return config


def _get_config(file: str, arguments: Sequence[str]) -> Callable[..., Any]:
  """Returns the `get_config` of a config file, which takes the arguments, or raises an error."""
  get_config = runpy.run_path(file).get("get_config")
  if not callable(get_config):
    raise errors.UserError(
      f"The config file {file} has no function get_config(): begin with a copy of a file such as "
      f"configs/cifar10.py."
    )
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError as e:
    how = "with" if arguments else "without"
    raise errors.UserError(
      f"get_config() of the config file {file} can't be called {how} arguments after a colon: "
      f"{one_line(e)}."
    ) from e
  return get_config


def failure(what: str, path: str, error: BaseException) -> errors.UserError:
  """Returns the mistake that a user's Python file fails, with its line.

  Args:
    what: What the file is, such as 'config file'.
    path: The file.
    error: What was raised.
  """
  line = line_in(path, error)
  where = "" if line is None else f" in line {line}"
  return errors.UserError(
    f"The {what} {path} fails{where}: {type(error).__name__}: {one_line(error)}."
  )


def line_in(path: str, error: BaseException) -> int | None:
  """Returns the line of a Python file in which an error arose, None if it didn't arise there."""
  lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
  if isinstance(error, SyntaxError) and (error.filename == path or not lines):
    return error.lineno
  return lines[-1] if lines else None


def show_neighbours(path: str) -> None:
  """Lets a Python file import its neighbours as `configs.base`, from wherever the command runs."""
  folder = os.path.dirname(os.path.abspath(path))
  if os.path.isfile(os.path.join(folder, "__init__.py")):
    sys.path.append(os.path.dirname(folder))


def _find_config_file(argv: Sequence[str]) -> None:
  for previous, text in zip(["", *argv], argv, strict=False):
    name, equals, value = text.lstrip("-").partition("=")
    if previous in ("--config", "-config"):
      value = text
    elif name != "config" or not equals:
      continue
    path = value.partition(":")[0]
    if not os.path.isfile(path):
      advice = _advice_on_data(path) or _advice_on_config(path)
      raise errors.UserError(f"There is no config file {path!r}: {advice}")
    if path.lower().endswith(_DATA_FILES) and (advice := _advice_on_data(path)):
      raise errors.UserError(f"{path!r} is no config file: {advice}")
    show_neighbours(path)


def _advice_on_config(path: str) -> str:
  """Returns what to write instead of the path of a config file that isn't there."""
  names = {os.path.basename(f)[: -len(".py")]: f for f in sorted(glob.glob("configs/[!_]*.py"))}
  name = os.path.basename(path).lower().removesuffix(".py")
  if close := difflib.get_close_matches(name, names, n=1):
    return f"did you mean {names[close[0]]}?"
  return "give its path, such as --config=configs/cifar10.py."


def _advice_on_data(path: str) -> str:
  """Returns how to train on a folder, a CSV or an npz file; '' where the path names none."""
  whole = paths.expanded(path)
  if os.path.isdir(whole):
    if glob.glob(os.path.join(glob.escape(whole), "*.py")):  # a folder of configs, not of images
      return ""
  elif not (os.path.isfile(whole) and whole.lower().endswith(_DATA_FILES)):
    return ""
  config = "npz" if whole.lower().endswith(".npz") else "folder"
  argument = shlex.quote(f"--config=configs/{config}.py:path={path}")
  return f"to train on your own images, write {argument}."


def _unknown_flag(argv: Sequence[str], error: flags.UnrecognizedFlagError) -> str:
  """Returns a sentence on a flag that isn't one; it may be a field or an argument of the config."""
  name = error.flagname.partition("=")[0]
  field = name if name in _ARGUMENTS else _OTHER_NAMES.get(name, name)
  ways = [f"--config=FILE:{field}=..."] if field in _ARGUMENTS else []
  if field not in _OTHERWISE_AN_ARGUMENT and field in _fields(argv):
    ways.append(f"--config.{field}=...")
  if not ways:
    if " and " in field:
      return f"There is no flag --{name}: set the fields {field}, each with --config.FIELD=..."
    return f"{one_line(error)}."
  return f"There is no flag --{name}: write {' or '.join(ways)}"


def _fields(argv: Sequence[str]) -> list[str]:
  """Returns the fields of a command line's config; none where no config is given."""
  config = _config_alone(argv)
  return [] if config is None else list(config.keys())


def _root_mistake(error: BaseException) -> str | None:
  """Returns the sentence of the user's mistake that led to an error, if that is what did.

  The innermost one: absl wraps an error of a flag's parser in one of its own.
  """
  sentence = None
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, errors.UserError):
      sentence = str(cause)
    cause = cause.__cause__ or cause.__context__
  return sentence


def one_line(error: BaseException) -> str:
  """Returns the first line of an error's message, without a full stop.

  For an unknown field of a config, ml_collections lists all other fields; the line names only it.
  """
  text = str(error).strip()
  if unknown := re.search(r'Key "(.*?)" does not exist and cannot be added', text):
    meant = re.search(r'Did you mean "(.*?)" instead', text)
    hint = f" (did you mean {meant[1]!r}?)" if meant else ""
    return f"the config has no field {unknown[1]!r}{hint}"
  return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _require_plain_fields(argv: Sequence[str]) -> None:
  """Raises a `UserError` on an override of part of a field, which absl may crash at."""
  for text in argv:
    name = text.lstrip("-").partition("=")[0]
    field = name.removeprefix("config.")
    if text.startswith("-") and field != name and (plain := re.split(r"[.\[]", field)[0]) != field:
      raise errors.UserError(
        f"The config has no field {field!r}: set a whole field, as in --config.{plain}=VALUE."
      )


def _unknown_field(argv: Sequence[str]) -> str:
  """Returns a sentence on the first override that names no field of the config."""
  fields = _fields(argv)
  for text in argv:
    name = text.lstrip("-").partition("=")[0]
    field = name.removeprefix("config.")
    if name.startswith("config.") and field not in fields:
      known = _OTHER_NAMES.get(field)
      close = [known] if known else difflib.get_close_matches(field, fields, n=1)
      hint = f": did you mean {close[0]}?" if close else "."
      return f"The config has no field {field!r}{hint} Its fields are {', '.join(fields)}."
  return "A field on the command line can't be set in this config."


def _bad_value(argv: Sequence[str], error: flags.IllegalFlagValueError) -> str:
  """Returns a sentence on a value that its field can't take."""
  flag = one_line(error).removeprefix("flag --").partition(": ")[0]
  name, _, value = flag.partition("=")
  field = name.removeprefix("config.")
  if field == name:
    return f"The flag --{name} can't be {value!r}."
  kind = _KINDS.get(_config_alone(argv).get_type(field), "another value")
  return f"The field {field} takes {kind}, not {value!r}."


def _config_alone(argv: Sequence[str]) -> Any:
  """Returns the config of a command line without its overrides."""
  values = flags.FlagValues()
  own = [text for text in argv if not text.lstrip("-").startswith("config.")]
  holder = define_config(values, own)
  values(own, known_only=True)
  return holder.value
