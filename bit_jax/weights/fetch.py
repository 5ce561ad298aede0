"""From a checkpoint's name to its file: an explicit path, the cache directory, or a download."""

import contextlib
import functools
import importlib.resources
import os
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import cache, errors, files, paths, phrases, proxies
from bit_jax.weights import catalogue, checkpoints, download, hub

MIRRORS_VARIABLE = "BIT_JAX_MIRRORS"
_BYTES, _OVERHEAD = 4, 1 << 20  # of a parameter, and of names and shapes in a file


def resolve(name_or_path: str, *, mirrors: Sequence[str] = ()) -> pathlib.Path:
  """Returns the file of a checkpoint, downloading it into the cache directory if needed.

  Args:
    name_or_path: A name of the catalogue; or a path: any other text with a slash, or that ends in
      `.npz` or `.safetensors` (`~` is expanded).
    mirrors: Base URLs to try first, before those of $BIT_JAX_MIRRORS (separated by commas) and
      the official one. Names that start with `timm/` come from the Hugging Face hub instead, or
      from $HF_ENDPOINT.

  Raises:
    UserError: The path or the name doesn't exist, or the file is neither cached nor reachable.
  """
  with contextlib.suppress(NotInCacheError):
    return locate(name_or_path)
  checkpoint = catalogue.find(name_or_path)
  if checkpoint.source == "hub":
    return hub.fetch(checkpoint)
  target = cache.directory() / checkpoint.file
  variable = os.environ.get(MIRRORS_VARIABLE, "").split(",")
  bases = [*mirrors, *(m.strip() for m in variable if m.strip()), catalogue.BASE_URL]
  message = f"Waiting for another process that downloads {target.name} ..."
  report = functools.partial(print, message, file=sys.stderr)
  advice = f"set ${cache.ENVIRONMENT_VARIABLE} to a writable folder"
  with files.exclusive(target.with_name(f"{target.name}.lock"), report, advice):
    if not target.is_file():  # another process may have downloaded it in the meantime
      _fetch(checkpoint, target, bases)
  return target


class NotInCacheError(errors.UserError):
  """A checkpoint of the catalogue that is not on this machine yet."""


def locate(name_or_path: str) -> pathlib.Path:
  """Returns the file of a checkpoint that is on this machine already.

  Args:
    name_or_path: A path or a name, as in `resolve`.

  Raises:
    NotInCacheError: It would have to be downloaded.
    UserError: The path or the name doesn't exist, or there is no cache directory.
  """
  is_path = "/" in name_or_path or name_or_path.endswith((".npz", ".safetensors"))
  if is_path and name_or_path not in catalogue.CATALOGUE:
    path = paths.named(name_or_path)
    if os.path.isfile(path):
      return path
    what = "is a folder" if os.path.isdir(path) else "doesn't exist or can't be read"
    raise errors.UserError(
      f"{path} {what}: give the path of an .npz or .safetensors file{_name_instead(path)}."
    )
  checkpoint = catalogue.find(name_or_path)
  if checkpoint.embedded:
    package = importlib.resources.files("bit_jax.weights")
    path = pathlib.Path(str(package.joinpath(checkpoint.file)))
    if path.is_file():
      return path
    raise errors.UserError(
      f"{checkpoint.name} comes with bit_jax and is missing at {path}: install bit_jax again."
    )
  if cached_path := cached(checkpoint):
    return cached_path
  place = f", or put it at {cache.directory() / checkpoint.file}" * (checkpoint.source != "hub")
  raise NotInCacheError(
    f"{checkpoint.name} is not in the cache: download it with `python -m bit_jax.weights download "
    f"{checkpoint.name}`{place}."
  )


def _name_instead(path: pathlib.Path) -> str:
  """Returns the name of a checkpoint that a missing path may be meant for, as advice, or ''."""
  if path.suffix == ".npz" and path.stem in catalogue.CATALOGUE:
    return f", or {path.stem} without .npz to download it"
  copies = [name for name, c in catalogue.CATALOGUE.items() if c.source == "hub"]
  return phrases.did_you_mean(str(path), copies)


def cached(checkpoint: catalogue.Checkpoint) -> pathlib.Path | None:
  """Returns the checkpoint's file in the cache, if any.

  Of timm's copies, that is the cache of the Hugging Face hub; else the folder of the checkpoint in
  this project's cache, or its top level.
  """
  if checkpoint.source == "hub":
    return hub.cached(checkpoint)
  try:
    root = cache.directory()
  except errors.UserError:  # there is none
    return None
  candidates = (root / checkpoint.file, root / pathlib.Path(checkpoint.file).name)
  return next((p for p in candidates if os.path.isfile(p)), None)


def _fetch(checkpoint: catalogue.Checkpoint, target: pathlib.Path, bases: Sequence[str]) -> None:
  """Downloads and checks the file, then moves it to `target`; tries one base URL after another."""
  part = target.with_name(f"{target.name}.part")
  most = _BYTES * checkpoint.num_parameters + _OVERHEAD
  failures = []
  for url in (f"{base.rstrip('/')}/{checkpoint.file}" for base in bases):
    try:
      download.download(url, part, most)
      digest = checkpoints.verify(part, checkpoint.architecture, checkpoint.num_classes)
    except download.DownloadError as e:
      failures.append(f"{proxies.without_password(url)}: {e}")
    except errors.UserError as e:
      download.discard(part)
      why = str(e).rstrip(".")
      failures.append(f"{proxies.without_password(url)}: a wrong file, which was deleted ({why})")
    else:
      part.replace(target)
      download.discard(part)
      cache.remember_sha256(target, digest)
      return
  raise errors.UserError(
    f"{checkpoint.name} is not in the cache and can't be downloaded ({'; '.join(failures)}). "
    f"Download {catalogue.BASE_URL}{checkpoint.file} on another machine and put it at {target}, or "
    f"name a mirror in ${MIRRORS_VARIABLE}. Without it you can run configs/quickstart.py, or train "
    f"on your own folder with the checkpoint in the package: model=R14x0.5."
  )
