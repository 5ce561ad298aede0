"""From a checkpoint's name to a file: an explicit path, the cache directory, or a download."""

import contextlib
import importlib.resources
import os
import pathlib
import stat
import sys
from collections.abc import Iterator, Sequence

from bit_jax.runtime import cache, errors, files, paths, proxies
from bit_jax.weights import catalogue, checkpoints, download

MIRRORS_VARIABLE = "BIT_JAX_MIRRORS"


def resolve(
  name_or_path: str, *, mirrors: Sequence[str] = (), progress: bool = True
) -> pathlib.Path:
  """Returns the file of a checkpoint, downloading it into the cache directory if need be.

  Args:
    name_or_path: A path (whatever has a slash in it or ends in `.npz`; `~` is expanded) or a name
      of the catalogue.
    mirrors: Base URLs to try first, before those of $BIT_JAX_MIRRORS (separated by commas) and
      the official one.
    progress: Whether to show a progress bar on stderr.

  Raises:
    UserError: The path or the name doesn't exist, or the file is neither at hand nor reachable.
  """
  with contextlib.suppress(NotInCacheError):
    return locate(name_or_path)
  checkpoint = catalogue.find(name_or_path)
  target = cache.directory() / checkpoint.file
  bases = [*mirrors, *_mirrors_from_environment(), catalogue.BASE_URL]
  with _locked(target):
    if not target.is_file():  # else another process has just brought it
      _fetch(checkpoint, target, bases, progress=progress)
  return target


class NotInCacheError(errors.UserError):
  """A checkpoint of the catalogue that is not on this machine yet."""


def locate(name_or_path: str) -> pathlib.Path:
  """Returns the file of a checkpoint that is on this machine already.

  Args:
    name_or_path: As `resolve`.

  Raises:
    NotInCacheError: It would have to be downloaded.
    UserError: The path or the name doesn't exist.
  """
  if "/" in name_or_path or os.sep in name_or_path or name_or_path.endswith(".npz"):
    return _existing(paths.named(name_or_path))
  checkpoint = catalogue.find(name_or_path)
  if checkpoint.embedded:
    return _embedded(checkpoint)
  if path := cached(checkpoint):
    return path
  raise NotInCacheError(
    f"{checkpoint.name} is not in the cache: `python -m bit_jax.weights download "
    f"{checkpoint.name}` gets it, or put it at {_place(checkpoint)}."
  )


def cached(checkpoint: catalogue.Checkpoint) -> pathlib.Path | None:
  """Returns the checkpoint's file in the cache, in its folder or right at the top, if any."""
  try:
    root = cache.directory()
  except errors.UserError:  # there is none
    return None
  candidates = (root / checkpoint.file, root / pathlib.Path(checkpoint.file).name)
  return next((p for p in candidates if os.path.isfile(p)), None)


def _place(checkpoint: catalogue.Checkpoint) -> str:
  try:
    return str(cache.directory() / checkpoint.file)
  except errors.UserError:
    return f"{checkpoint.file} in a folder that ${cache.ENVIRONMENT_VARIABLE} names"


def _existing(path: pathlib.Path) -> pathlib.Path:
  try:
    if stat.S_ISREG(path.stat().st_mode):
      return path
    what = "is a folder" if path.is_dir() else "is no file"
  except (FileNotFoundError, NotADirectoryError):
    what = "doesn't exist"
  except OSError as e:
    what = f"can't be read ({e.strerror})"
  known = path.stem in catalogue.CATALOGUE
  hint = f", or {path.stem} without .npz to have it downloaded" if known else ""
  raise errors.UserError(f"{path} {what}: give the path of an .npz file{hint}.")


def _embedded(checkpoint: catalogue.Checkpoint) -> pathlib.Path:
  path = pathlib.Path(str(importlib.resources.files("bit_jax.weights").joinpath(checkpoint.file)))
  if path.is_file():
    return path
  raise errors.UserError(
    f"{checkpoint.name} comes with bit_jax and is missing at {path}: install bit_jax again."
  )


def _mirrors_from_environment() -> list[str]:
  return [m.strip() for m in os.environ.get(MIRRORS_VARIABLE, "").split(",") if m.strip()]


def _fetch(
  checkpoint: catalogue.Checkpoint, target: pathlib.Path, bases: Sequence[str], *, progress: bool
) -> None:
  """Downloads and checks the file, then moves it to `target`; tries one base URL after another."""
  part = target.with_name(f"{target.name}.part")
  failures = []
  for url in (f"{base.rstrip('/')}/{checkpoint.file}" for base in bases):
    shown = proxies.without_password(url)
    try:
      download.download(url, part, progress=progress)
    except download.DownloadError as e:
      failures.append(f"{shown}: {e}")
      continue
    try:
      digest = checkpoints.verify(part, checkpoint.architecture, checkpoint.num_classes)
    except errors.UserError as e:
      download.discard(part)
      failures.append(f"{shown}: a wrong file, deleted again ({str(e).rstrip('.')})")
      continue
    part.replace(target)
    download.discard(part)
    cache.remember_sha256(target, digest)
    return
  raise errors.UserError(
    f"{checkpoint.name} is not in the cache and can't be downloaded ({'; '.join(failures)}). Put "
    f"the file at {target}, got from {catalogue.BASE_URL}{checkpoint.file} on a machine that "
    f"reaches it, or name a mirror in ${MIRRORS_VARIABLE}; configs/quickstart.py runs without it, "
    f"or train on your own folder with the checkpoint that the package carries: model=R14x0.5."
  )


@contextlib.contextmanager
def _locked(target: pathlib.Path) -> Iterator[None]:
  """Lets one process at a time work on `target`."""

  def report() -> None:
    print(f"Waiting for another process that downloads {target.name} ...", file=sys.stderr)

  lock = target.with_name(f"{target.name}.lock")
  with contextlib.ExitStack() as held:
    try:
      lock.parent.mkdir(parents=True, exist_ok=True)
      held.enter_context(files.exclusive(lock, report))
    except OSError as e:
      raise errors.UserError(
        f"The cache directory {lock.parent} can't be written ({e.strerror or e}): set "
        f"${cache.ENVIRONMENT_VARIABLE} to a folder that can."
      ) from e
    yield
