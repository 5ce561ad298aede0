"""The flags `--config=FILE[:key=value,...]` and `--config.FIELD=VALUE`, with hints on typos."""

import difflib
import inspect
import os
import pathlib
import re
import runpy
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags as ml_config_flags

from bit_jax.runtime import errors, user_files

# Arguments of config files that users pass as flags or fields.
_ARGUMENTS = (
  *("crop", "flip", "microbatch", "model", "path", "preset", "protocol", "resolution", "seed"),
  *("shots", "task", "weights"),
)
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
_LONGEST_NAME = 100  # characters of a flag
_DATA_FILES = (".csv", ".tsv", ".npz")
_TYPES = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  tuple: "a tuple of integers, e.g. (200,300,400)",
  str: "a text",
}


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> ml_collections.ConfigDict | None:
  """Parses a command line with `--config=FILE[:key=value,...]` and `--config.FIELD=VALUE`.

  Args:
    flag_values: The other flags; `config` is added.
    argv: The program's name, then its arguments.

  Returns:
    The config with its overrides; None without `--config`.

  Raises:
    UserError: An unknown flag or field, a config file that can't be used, or a value that its field
      doesn't take.
  """
  names = [text.lstrip("-").partition("=")[0] for text in argv if text.startswith("-")]
  overridden = [name.removeprefix("config.") for name in names if name.startswith("config.")]
  if long := [name for name in names if len(name) > _LONGEST_NAME]:  # absl looks for close ones
    raise errors.UserError(f"Unknown flag --{long[0][:_LONGEST_NAME]}...: no flag is so long.")
  for field in overridden:
    if (whole := re.split(r"[.\[]", field)[0]) != field:  # absl may crash at it
      raise errors.UserError(
        f"The config has no field {field!r}: set a whole field, as in --config.{whole}=VALUE."
      )
  parser = _ConfigFileParser()
  try:
    ml_config_flags.DEFINE_config_file("config", flag_values=flag_values, sys_argv=list(argv))
    flag_values["config"].parser = parser
    rest = flag_values(argv)[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    raise errors.UserError(_sentence(e, overridden, parser.config)) from e
  if rest:
    is_config = rest[0].partition(":")[0].endswith(".py")
    hint = f"did you mean --config={rest[0]}?" if is_config else "such as --config=FILE."
    if "=" in rest[0] and not is_config:
      hint = "and the arguments of a config file are joined by commas, without spaces."
    advice = _advice_on_data(rest[0]) or f"flags start with `--`, {hint}"
    raise errors.UserError(f"Unexpected argument {rest[0]!r}: {advice}")
  return flag_values["config"].value


def override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  """Sets fields of a config, as `--config.FIELD=VALUE` does.

  Raises:
    UserError: The config has no such field, or the field takes another type.
  """
  for field, value in values.items():
    if field not in config:
      raise errors.UserError(_no_field(field, list(config.keys())))
    try:
      config[field] = value
    except (TypeError, ValueError, OverflowError) as e:
      raise errors.UserError(_wrong_type(config, field, value)) from e


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
      get_config = runpy.run_path(file).get("get_config")
      if get_config is None:
        raise errors.UserError(
          f"The config file {file} has no function get_config(): start from a copy of a file such "
          f"as configs/cifar10.py."
        )
      if arguments and not inspect.signature(get_config).parameters:
        raise errors.UserError(
          f"get_config() of the config file {file} can't be called with arguments after a colon: "
          f"remove ':{arguments[0]}', or give it a parameter, as in configs/base.py."
        )
      config = get_config(*arguments)
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


def _find_config_file(path: str) -> str:
  """Returns the path of a config file; configs/NAME.py that doesn't exist is the package's.

  Raises:
    UserError: The file isn't found, or holds data; the message says what to write.
  """
  if advice := _advice_on_data(path):
    raise errors.UserError(f"{path!r} is not a config file: {advice}")
  if os.path.isfile(path):
    return path
  folder, name = os.path.split(os.path.normpath(path))
  packaged = user_files.CONFIGS / name
  if folder in ("configs", "bit_jax/configs") and packaged.is_file():
    return str(packaged)
  names = [f.stem for f in user_files.CONFIGS.glob("[!_]*.py")]
  close = difflib.get_close_matches(name.lower().removesuffix(".py"), names, n=1)
  advice = (
    f"did you mean configs/{close[0]}.py?"
    if close
    else "give its path, such as --config=configs/cifar10.py."
  )
  raise errors.UserError(f"Config file {path!r} not found: {advice}")


def _advice_on_data(path: str) -> str:
  """Returns how to train on a folder, a CSV or an npz file; '' where the path is none of these."""
  if "\0" in path:  # no file has it, and looking for a home folder fails
    return ""
  data = pathlib.Path(os.path.expanduser(path))
  try:
    has_images = data.is_dir() and not any(data.glob("*.py"))  # a folder of configs has such files
    is_file = data.is_file()
  except OSError:  # a name that is too long, or a folder that can't be looked into
    return ""
  if not has_images and not (is_file and data.suffix.lower() in _DATA_FILES):
    return ""
  config = "npz" if data.suffix.lower() == ".npz" else "folder"
  argument = shlex.quote(f"--config=configs/{config}.py:path={path}")
  return f"to train on your own images, use {argument}."


def _sentence(
  error: Exception, overridden: Sequence[str], config: ml_collections.ConfigDict | None
) -> str:
  """Returns a sentence about why a command line with these overridden fields can't be parsed."""
  causes: list[BaseException] = [error]
  while cause := causes[-1].__cause__ or causes[-1].__context__:
    causes.append(cause)
  # absl wraps an error of a flag's parser: the innermost has the message.
  if messages := [str(e) for e in causes if isinstance(e, errors.UserError)]:
    return messages[-1]
  text = errors.first_line(error).removeprefix("ERROR:: ")
  fields = [] if config is None else list(config.keys())
  if isinstance(error, AttributeError | KeyError):
    return _no_field(next((f for f in overridden if f not in fields), ""), fields)
  if isinstance(error, flags.UnrecognizedFlagError):
    name = error.flagname.partition("=")[0]
    field = name if name in _ARGUMENTS else _OTHER_NAMES.get(name, name)
    ways = [f"--config=FILE:{field}=..."] if field in _ARGUMENTS else []
    parts = field.split(" and ")
    if field != "crop" and set(parts) <= set(fields):  # the field crop is not the argument crop
      ways.append(" and ".join(f"--config.{part}=..." for part in parts))
    if ways:
      return f"Unknown flag --{name}: use {' or '.join(ways)}"
    meant = text.partition("Did you mean: ")[2].rstrip(" ?").replace(" or ", " or --")
    return f"Unknown flag --{name}" + (f": did you mean --{meant}?" if meant else ".")
  if isinstance(error, flags.IllegalFlagValueError):
    name, _, value = text.removeprefix("flag --").partition(": ")[0].partition("=")
    field = name.removeprefix("config.")
    if config is None or field not in fields:
      return f"The flag --{name} can't be {value!r}."
    return _wrong_type(config, field, value)
  return f"{text}."


def _no_field(field: str, fields: Sequence[str]) -> str:
  known = _OTHER_NAMES.get(field)
  close = [known] if known else difflib.get_close_matches(field, fields, n=1)
  hint = f": did you mean {close[0]}?" if close else "."
  return f"The config has no field {field!r}{hint} Its fields are {', '.join(fields)}."


def _wrong_type(config: ml_collections.ConfigDict, field: str, value: Any) -> str:
  kind = _TYPES.get(config.get_type(field), "another type")
  return f"The field {field} takes {kind}, not {value!r}."
