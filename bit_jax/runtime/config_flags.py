"""The flags `--config=FILE[:key=value,...]` and `--config.FIELD=VALUE`, with hints on typos."""

import difflib
import glob
import inspect
import os
import re
import runpy
import shlex
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags as ml_config_flags

from bit_jax.runtime import errors, paths, user_files

# Arguments of config files that users pass as flags or fields.
_ARGUMENTS = (
  *("crop", "flip", "microbatch", "model", "path", "preset", "protocol", "resolution", "seed"),
  *("shots", "task", "weights"),
)
_ONLY_ARGUMENTS = ("crop",)  # the field of this name has another meaning
# {name in other programs: field}
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
_TYPES = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  tuple: "numbers in brackets, such as (200,300,400)",
}


def define(flag_values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagHolder[Any]:
  """Defines `--config=FILE[:key=value,...]` with `--config.FIELD=VALUE` overrides.

  Raises:
    UserError: A file of flags can't be opened.
  """
  try:
    holder: flags.FlagHolder[Any] = ml_config_flags.DEFINE_config_file(
      "config",
      None,
      "the config file, with arguments after a colon",
      flag_values=flag_values,
      sys_argv=list(argv),
    )
  except flags.CantOpenFlagFileError as e:  # of --flagfile, which absl itself defines
    raise errors.UserError(f"{errors.first_line(e).removeprefix('ERROR:: ')}.") from e
  flag_values["config"].parser = _ConfigFileParser()
  return holder


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
  """Parses a command line.

  Args:
    flag_values: The flags, with `config` from `define` among them.
    argv: The program's name, then its arguments.

  Raises:
    UserError: An unknown flag or field, a config file that can't be used, or a value that its field
      doesn't take.
  """
  _require_whole_fields(argv)
  try:
    rest = flag_values(argv)[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(_sentence(e, argv, flag_values)) from e
  if rest:
    advice = _advice_on_data(rest[0]) or "flags start with `--`, such as --config=FILE."
    raise errors.UserError(f"Unexpected argument {rest[0]!r}: {advice}")


class _ConfigFileParser(flags.ArgumentParser[ml_collections.ConfigDict]):
  """Loads a config file; the parser of ml_collections hides where the file fails.

  Attributes:
    config: The config that was loaded last, before overrides; None before the first.
  """

  config: ml_collections.ConfigDict | None = None

  def parse(self, argument: str) -> ml_collections.ConfigDict:
    """Returns the config of FILE or FILE:ARGUMENTS, locked.

    Raises:
      UserError: The file isn't found, isn't Python, fails, or returns no config.
    """
    file, *arguments = argument.split(":", 1)
    file = _find_config_file(file)
    user_files.add_to_import_path(file)
    try:
      config = _call_get_config(file, arguments)
    except errors.UserError:
      raise
    except (Exception, SystemExit) as e:
      raise user_files.failure("config file", file, e) from e
    if type(config) is not ml_collections.ConfigDict:  # a frozen one takes no overrides
      raise errors.UserError(
        f"get_config() of the config file {file} returns a {type(config).__name__}, and must "
        f"return a ConfigDict, as configs/base.py does."
      )
    config.lock()
    self.config = config
    return config


def _call_get_config(file: str, arguments: Sequence[str]) -> Any:
  """Returns what `get_config` of a config file returns."""
  get_config = runpy.run_path(file).get("get_config")
  if not callable(get_config):
    raise errors.UserError(
      f"The config file {file} has no function get_config(): start from a copy of a file such as "
      f"configs/cifar10.py."
    )
  try:
    inspect.signature(get_config).bind(*arguments)
  except TypeError as e:
    how = "with" if arguments else "without"
    raise errors.UserError(
      f"get_config() of the config file {file} can't be called {how} arguments after a colon: "
      f"{errors.first_line(e)}."
    ) from e
  return get_config(*arguments)


def _find_config_file(path: str) -> str:
  """Returns the path of a config file; configs/NAME.py that doesn't exist is the package's.

  Raises:
    UserError: The file isn't found, or holds data; the message says what to write.
  """
  if os.path.isfile(path):
    if path.lower().endswith(_DATA_FILES):
      raise errors.UserError(f"{path!r} is not a config file: {_advice_on_data(path)}")
    return path
  folder, name = os.path.split(os.path.normpath(path))
  packaged = user_files.CONFIGS / name
  if folder in ("configs", "bit_jax/configs") and packaged.is_file():
    return str(packaged)
  advice = _advice_on_data(path) or _advice_on_config(path)
  raise errors.UserError(f"Config file {path!r} not found: {advice}")


def _advice_on_config(path: str) -> str:
  """Returns what to write instead of the path of a config file that doesn't exist."""
  names = sorted(f.stem for f in user_files.CONFIGS.glob("[!_]*.py"))
  name = os.path.basename(path).lower().removesuffix(".py")
  if close := difflib.get_close_matches(name, names, n=1):
    return f"did you mean configs/{close[0]}.py?"
  return "give its path, such as --config=configs/cifar10.py."


def _advice_on_data(path: str) -> str:
  """Returns how to train on a folder, a CSV or an npz file; '' where the path is none of these."""
  expanded = paths.expanded(path)
  if os.path.isdir(expanded):
    if glob.glob(os.path.join(glob.escape(expanded), "*.py")):  # a folder of configs, not of images
      return ""
  elif not (os.path.isfile(expanded) and expanded.lower().endswith(_DATA_FILES)):
    return ""
  config = "npz" if expanded.lower().endswith(".npz") else "folder"
  argument = shlex.quote(f"--config=configs/{config}.py:path={path}")
  return f"to train on your own images, use {argument}."


def _sentence(error: Exception, argv: Sequence[str], flag_values: flags.FlagValues) -> str:
  """Returns a sentence on why a command line can't be parsed."""
  cause: BaseException | None = error
  message = None
  while cause is not None:  # absl wraps an error of a flag's parser: the innermost has the message
    message = str(cause) if isinstance(cause, errors.UserError) else message
    cause = cause.__cause__ or cause.__context__
  parser = flag_values["config"].parser
  config = parser.config if isinstance(parser, _ConfigFileParser) else None
  if message is not None:
    return message
  if isinstance(error, AttributeError | KeyError):
    return _unknown_field(argv, config)
  if isinstance(error, flags.UnrecognizedFlagError):
    return _unknown_flag(error, config)
  if isinstance(error, flags.IllegalFlagValueError):
    return _bad_value(error, config)
  return f"{errors.first_line(error)}."


def _unknown_flag(
  error: flags.UnrecognizedFlagError, config: ml_collections.ConfigDict | None
) -> str:
  """Returns a sentence on an unknown flag, which may be a field or an argument of the config."""
  name = error.flagname.partition("=")[0]
  field = name if name in _ARGUMENTS else _OTHER_NAMES.get(name, name)
  ways = [f"--config=FILE:{field}=..."] if field in _ARGUMENTS else []
  if field not in _ONLY_ARGUMENTS and config is not None and field in config:
    ways.append(f"--config.{field}=...")
  if ways:
    return f"There is no flag --{name}: use {' or '.join(ways)}"
  if " and " in field:
    return f"There is no flag --{name}: set the fields {field}, each with --config.FIELD=..."
  return f"{errors.first_line(error)}."


def _unknown_field(argv: Sequence[str], config: ml_collections.ConfigDict | None) -> str:
  """Returns a sentence on the first override whose field the config doesn't have."""
  fields = [] if config is None else list(config.keys())
  for field in _overridden(argv):
    if field not in fields:
      known = _OTHER_NAMES.get(field)
      close = [known] if known else difflib.get_close_matches(field, fields, n=1)
      hint = f": did you mean {close[0]}?" if close else "."
      return f"The config has no field {field!r}{hint} Its fields are {', '.join(fields)}."
  return "A field on the command line can't be set in this config."


def _bad_value(error: flags.IllegalFlagValueError, config: ml_collections.ConfigDict | None) -> str:
  """Returns a sentence on a value that its flag or field doesn't take."""
  flag = errors.first_line(error).removeprefix("flag --").partition(": ")[0]
  name, _, value = flag.partition("=")
  field = name.removeprefix("config.")
  if field == name or config is None:
    return f"The flag --{name} can't be {value!r}."
  return (
    f"The field {field} takes {_TYPES.get(config.get_type(field), 'another type')}, not {value!r}."
  )


def _overridden(argv: Sequence[str]) -> list[str]:
  """Returns the fields of the overrides `--config.FIELD=VALUE` of a command line."""
  names = [text.lstrip("-").partition("=")[0] for text in argv if text.startswith("-")]
  return [name.removeprefix("config.") for name in names if name.startswith("config.")]


def _require_whole_fields(argv: Sequence[str]) -> None:
  """Raises a `UserError` on an override of part of a field, which absl may crash at."""
  for field in _overridden(argv):
    if (whole := re.split(r"[.\[]", field)[0]) != field:
      raise errors.UserError(
        f"The config has no field {field!r}: set a whole field, as in --config.{whole}=VALUE."
      )
