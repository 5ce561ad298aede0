"""Paths that users write, in which `~` and `~user` stand for home folders."""

import argparse
import os
import pathlib
import pwd

from bit_jax.runtime import errors


def home() -> str | None:
  """Returns this user's home folder, None where neither HOME nor the user database has one."""
  if folder := os.environ.get("HOME"):
    return folder
  try:
    return pwd.getpwuid(os.getuid()).pw_dir or None
  except KeyError:  # in a container that runs as an arbitrary user
    return None


def expanded(text: str) -> str:
  """Returns a path with `~` or `~user` replaced by the home folder; unchanged without such a user.

  A file named `~b.jpg` keeps its path.
  """
  first, slash, rest = text.partition("/")
  if first != "~":
    return os.path.expanduser(text)
  folder = home()
  return text if folder is None else (folder.rstrip("/") + slash + rest) or "/"


def named(text: str) -> pathlib.Path:
  """Returns the path that a user's text names, `expanded`.

  Raises:
    UserError: It begins with a `~` that stands for no home folder, and no such path exists.
  """
  path = expanded(text)
  if not path.startswith("~") or os.path.lexists(path):
    return pathlib.Path(path)
  name = path.partition("/")[0][1:]
  if not name:
    raise errors.UserError(
      f"The path {text} can't be used: HOME isn't set, and user {os.getuid()} has no home folder. "
      f"Set HOME, or give a path without ~."
    )
  raise errors.UserError(
    f"The path {text} can't be used: there is no user {name!r} with a home folder, and no such "
    f"file or folder here. If the name begins with ~, write ./{text}."
  )


def argument(text: str) -> pathlib.Path:
  """Returns `named(text)`, for the `type` of argparse's arguments.

  Raises:
    argparse.ArgumentTypeError: Where `named` raises a `UserError`.
  """
  try:
    return named(text)
  except errors.UserError as e:
    raise argparse.ArgumentTypeError(str(e)) from e
