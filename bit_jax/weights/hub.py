"""timm's copies of released checkpoints, through huggingface_hub and its cache.

It follows $HF_ENDPOINT, $HF_HOME, $HF_HUB_OFFLINE and the proxies of the environment, resumes a
download, and shares the cached files with timm.
"""

import os
import pathlib
import re
import types

from bit_jax.runtime import cache, errors
from bit_jax.weights import catalogue, checkpoints, download

_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(checkpoint: catalogue.Checkpoint) -> pathlib.Path:
  """Returns the file of a checkpoint, downloaded and verified.

  Raises:
    UserError: huggingface_hub is not installed, the file can't be downloaded, or it is a wrong one.
  """
  try:
    library = _library()
  except ImportError as e:
    raise errors.UserError(
      f"{checkpoint.name} comes from the Hugging Face hub, and huggingface_hub is not installed: "
      f"run `pip install 'bit_jax[hub]'`, or use {checkpoint.copy_of}, which has the same weights."
    ) from e
  endpoint = library.constants.ENDPOINT
  try:
    path = pathlib.Path(library.hf_hub_download(checkpoint.name, checkpoint.file))
  except Exception as e:  # of the library, of httpx or requests below it, or an OSError
    raise errors.UserError(
      f"{checkpoint.name} is not in the cache and can't be downloaded from {endpoint} "
      f"({_why(e, library)}). Download {endpoint}/{checkpoint.name}/resolve/main/{checkpoint.file} "
      f"on another machine and give its path, name a mirror in $HF_ENDPOINT, or use "
      f"{checkpoint.copy_of}, which has the same weights."
    ) from e
  try:
    digest = checkpoints.verify(path, checkpoint.architecture, checkpoint.num_classes)
    require_intact(path, digest)
  except errors.UserError as e:
    blob = path.resolve()
    path.unlink()
    blob.unlink(missing_ok=True)
    why = str(e).rstrip(".")
    raise errors.UserError(f"{endpoint} sent a wrong file, which was deleted ({why}).") from e
  cache.remember_sha256(path, digest)
  return path


def require_intact(path: pathlib.Path, digest: str) -> None:
  """Raises a UserError if a file in the cache of the hub has changed; knows nothing about others.

  Args:
    path: Any file.
    digest: The SHA-256 of its bytes, in hexadecimal.
  """
  stored = path.resolve()  # the cache calls it by its hash, and links to it
  if _SHA256.fullmatch(stored.name) and stored.name != digest:
    raise errors.UserError(
      f"{path} is damaged, as its SHA-256 is {digest} and that of the hub's file {stored.name}: "
      f"delete {stored} and download it again."
    )


def cached(checkpoint: catalogue.Checkpoint) -> pathlib.Path | None:
  """Returns the checkpoint's file in the cache of the hub, if any."""
  try:
    found = _library().try_to_load_from_cache(checkpoint.name, checkpoint.file)
  except ImportError:
    return None
  return pathlib.Path(found) if isinstance(found, str) and os.path.isfile(found) else None


def _library() -> types.ModuleType:
  """Returns huggingface_hub, whose import takes about half a second.

  Raises:
    ImportError: It is not installed, or something that it needs.
  """
  import huggingface_hub.constants

  return huggingface_hub


def _why(error: Exception, library: types.ModuleType) -> str:
  """Returns the cause of a failed download as a clause."""
  if library.constants.HF_HUB_OFFLINE:
    return "$HF_HUB_OFFLINE is set"
  cause: BaseException | None = error
  while cause:
    if (response := getattr(cause, "response", None)) is not None:
      return f"the server returned {response.status_code}"
    cause = cause.__cause__ or cause.__context__
  return download.reason(error)
