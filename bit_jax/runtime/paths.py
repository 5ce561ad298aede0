"""Paths that users write, in which `~` and `~user` stand for home folders."""

import argparse
import os
import pathlib

from bit_jax.runtime import errors


def named(text: str) -> pathlib.Path:
  """Returns the path that a user's text names, with `~` or `~user` replaced by the home folder.

  A file named `~b.jpg` keeps its path.

  Raises:
    UserError: It begins with a `~` that is not a valid home folder, and no such path exists.
  """
  path = os.path.expanduser(text)
  if path.startswith("~") and not os.path.lexists(path):
    raise errors.UserError(
      f"The path {text} can't be used: {path.partition('/')[0]} is not a valid home folder. Set "
      f"HOME, or give a path without ~ (for a name that begins with ~, ./{text})."
    )
  return pathlib.Path(path)


def argument(text: str) -> pathlib.Path:
  """Returns `named(text)`, for the `type` of argparse's arguments.

  Raises:
    argparse.ArgumentTypeError: Where `named` raises a `UserError`.
  """
  try:
    return named(text)
  except errors.UserError as e:
    raise argparse.ArgumentTypeError(str(e)) from e
