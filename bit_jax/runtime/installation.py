"""What is installed: versions of packages, the commit of a checkout, and variables that set it up.

It imports no JAX, which may be what is broken.
"""

import os
import pathlib
import re
import tomllib
from collections.abc import Mapping
from importlib import metadata

from bit_jax.runtime import subprocesses

_PACKAGE = "bit_jax"
_SECONDS = 10  # that git may take: the checkout may lie on a network
_ROOT = pathlib.Path(__file__).parents[2]
# Packages that `jax` brings along, for all platforms.
_OF_JAX = (
  *("jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt"),
  *("jax-cuda13-plugin", "jax-cuda13-pjrt"),
)
_NVIDIA = re.compile(r"nvidia-(cuda-runtime|cudnn|cublas|nccl)\b.*")
# Extras of the project's own development, which a user's run doesn't load.
_DEVELOPMENT = re.compile(r"extra == ['\"](dev|docs|bench|exports|accelerators)['\"]")
_NAME = re.compile(r"[\w.-]+")
_VARIABLES = re.compile(
  r"(BIT_JAX|JAX|XLA|LIBTPU|TPU|TF|CUDA|CUBLAS|NCCL|OMP|OPENBLAS|MKL|ONEDNN|DNNL|MALLOC)_.*"
  r"|NVIDIA_TF32_OVERRIDE|LD_LIBRARY_PATH|LD_PRELOAD|GLIBC_TUNABLES|MPLBACKEND|TFDS_DATA_DIR"
  r"|HF_(HOME|ENDPOINT|HUB_.*)|REQUESTS_CA_BUNDLE|SSL_CERT_FILE|SLURM_(JOB_ID|NTASKS|PROCID)"
)
_PROXIES = re.compile(r"(https?|all|no|ftp)_proxy", re.IGNORECASE)
_SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key", re.IGNORECASE)
_HIDDEN = "***"


def version(package: str) -> str | None:
  """Returns a package's version; None if it isn't installed."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def commit() -> str | None:
  """Returns the commit that this code was checked out at; with '+' if files have changed since."""

  def git(*arguments: str) -> str:
    ended = subprocesses.run(["git", "-C", str(_ROOT), *arguments], _SECONDS)
    if ended is None or ended.status:
      raise OSError
    return ended.output.strip()

  try:
    if pathlib.Path(git("rev-parse", "--show-toplevel")) != _ROOT.resolve():
      return None  # installed somewhere inside another project's checkout
    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
  except OSError:
    return None


def versions() -> dict[str, str | None]:
  """Returns {package: version} of what this package declares, and of JAX's parts.

  What every run needs is None if it is missing; what only some need is left out then.
  """
  needed: dict[str, None] = {}
  optional: dict[str, None] = {}
  for requirement in _requirements():
    name, _, marker = requirement.partition(";")
    if (found := _NAME.match(name)) and not _DEVELOPMENT.search(marker):
      (optional if "extra ==" in marker else needed)[found[0]] = None
  installed = (d.metadata["Name"] or "" for d in metadata.distributions())
  more = dict.fromkeys((*_OF_JAX, *sorted(filter(_NVIDIA.fullmatch, installed))))
  found_versions = {name: version(name) for name in (*needed, *optional, *more)}
  found_versions.pop(_PACKAGE, None)  # extras name it
  return {k: v for k, v in found_versions.items() if v is not None or k in needed}


def _requirements() -> list[str]:
  """Returns the declared requirements; of a checkout that isn't installed, from its file."""
  declared = metadata.requires(_PACKAGE) if version(_PACKAGE) else None
  if declared is None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].items()
    declared = [
      *project["dependencies"],
      *(f"{r} ; extra == '{extra}'" for extra, group in extras for r in group),
    ]
  return declared


def variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
  """Returns the environment variables that a run depends on, without passwords in them.

  Of a URL with a user, only the server is shown; what follows a question mark is hidden.
  """
  chosen = {
    name: value
    for name, value in sorted(environment.items())
    if _VARIABLES.fullmatch(name) or _PROXIES.fullmatch(name)
  }
  return {k: _HIDDEN if _SECRET.search(k) else without_secrets(v) for k, v in chosen.items()}


def without_secrets(value: str) -> str:
  """Returns a text without what may be the user, the password or the key of a URL."""
  value = re.sub(r"^([^/@]*//)?.*@", rf"\1{_HIDDEN}@", value, flags=re.DOTALL)
  return re.sub(r"(://[^\s?]*)\?\S*", rf"\1?{_HIDDEN}", value)
