"""Paths that users write: `~` and `~user` stand for home folders, and URLs are refused.

Only `file:` URLs name a file or folder here. Any other would be read as a relative path, so that a
run would be written to `./s3:/bucket` without a word.
"""

import argparse
import os
import pathlib
import re
import urllib.parse

from bit_jax.runtime import errors

# Also with one slash, as in `str(pathlib.Path("s3://bucket"))`; `::` is in fsspec's chained URLs.
_URL = re.compile(
  r"\s*(?P<scheme>[a-z][\w+.:-]*):(?P<slashes>/+)(?P<rest>.*)", re.IGNORECASE | re.S
)
_DOWNLOADED = ("http", "https", "ftp")
_HERE = ("", "localhost")  # hosts of `file://` URLs that are this machine


def named(text: str) -> pathlib.Path:
  """Returns the path that a user's text names.

  `~` or `~user` is replaced by the home folder, but a file named `~b.jpg` keeps its path. Of a
  `file:` URL it is the path, with %20 and the like decoded. A folder that is really called `s3:`
  is named by `./s3:/x`.

  Raises:
    UserError: It begins with a `~` that is not a valid home folder, and no such path exists; or it
      is a URL of something else than a file of this machine, or has a null character.
  """
  path = pathlib.Path(expanded(text))
  return path.absolute() if is_url(str(path)) else path  # of ./s3:/x: as it may be named again


def expanded(text: str) -> str:
  """Returns the path that a user's text names, as `named`, otherwise with every letter kept.

  Raises:
    UserError: As `named`.
  """
  if is_url(text):
    return _local(text)
  if "\0" in text:
    raise errors.UserError(f"The path {text!r} can't be used: no file has a null character.")
  path = os.path.expanduser(text)
  if path.startswith("~") and not os.path.lexists(path):
    raise errors.UserError(
      f"The path {text} can't be used: {path.partition('/')[0]} is not a valid home folder. Set "
      f"HOME, or give a path without ~ (for a name that begins with ~, ./{text})."
    )
  return path


def is_url(text: str) -> bool:
  """Returns whether a text begins with a scheme, such as `s3://`, `gs:/` or `file:///`."""
  return _URL.match(text) is not None


def _local(url: str) -> str:
  """Returns the path of a `file:` URL; raises a `UserError` on any other."""
  found = _URL.fullmatch(url)
  assert found
  if (scheme := found["scheme"]).lower() != "file":
    way = "Download it, or mount" if scheme.lower() in _DOWNLOADED else "Mount"
    raise errors.UserError(
      f"{url} can't be used: it is a URL, and only files and folders of this machine are read and "
      f"written. {way} the storage as a folder, for example with gcsfuse or s3fs, and give the "
      f"path there (for a local folder called {scheme}:, ./{scheme}:/{found['rest']})."
    )
  host, slash, path = "", "/", found["rest"]
  if len(found["slashes"]) == 2:
    host, slash, path = path.partition("/")
  path = urllib.parse.unquote(slash + path, errors="surrogateescape")
  if host.lower() not in _HERE or not slash or "\0" in path:
    raise errors.UserError(
      f"{url} can't be used: a file URL must be file:///PATH, with the whole path of a file or "
      f"folder of this machine. Mount the storage of another one as a folder, for example with "
      f"sshfs, gcsfuse or s3fs."
    )
  return path


def argument(text: str) -> pathlib.Path:
  """Returns `named(text)`, for the `type` of argparse's arguments.

  Raises:
    argparse.ArgumentTypeError: Where `named` raises a `UserError`.
  """
  try:
    return named(text)
  except errors.UserError as e:
    raise argparse.ArgumentTypeError(str(e)) from e
