"""What users type: arguments of configs and sweeps, flags, and fields of a config.

The first line of an input says which; the rest is the text.
"""

import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

from absl import flags

from bit_jax import run_config
from bit_jax.configs import base, folder, quickstart, vtab
from bit_jax.data import datasets
from bit_jax.runtime import config_flags, paths
from experiments.reliability.fuzz import target
from experiments.sweeping import slurm

_KEYS = (
  *("model", "weights", "preset", "resolution", "protocol", "shots", "seed", "crop", "flip"),
  *("microbatch", "path", "task", "timeout_min", "mem_gb", "exclusive", "partition", "", "x"),
)
_VALUES = (
  *("R14x0.5", "BiT-M-R50x1", "none", "code", "paper", "final", "true", "0", "1", "-1", "1e5", ""),
  *(
    "9" * 5000,
    "٣",
    "½",
    "NaN",
    "inf",
    "a=b",
    "~",
    "~nobody/x",
    "~\0",
    "\udcff",
    "a" * 5000,
    "=,=",
  ),
  *("auto", "1_0", " 1", "cifar100", "[1]", "(1,2", "__import__('os')", "\u202e", "null", "0x10"),
)
_NUMBERS: tuple[Any, ...] = (
  *(None, True, False, 0, 1, -1, 0.5, 10**400, float("nan"), float("inf"), 2**31, 2**63, -0.0),
  *("", "auto", "R14x0.5", "none", "..", "a/b", "\0", "\udcff", [], [1], [[1]], {}, {"a": {}}),
  *("a" * 5000, [3, 2], [1, 2.5], [True], {"": [None]}, "digits", 32, 100, "folder", "~nobody/x"),
)


def texts() -> target.Target:
  """Returns texts of all of these."""
  fields = {"dataset": "digits", "model": "R14x0.5", "total_steps": 20, "name": "x"}
  seeds = [
    b"base\nmodel=R14x0.5,shots=5,seed=1",
    b"folder\nshots=5,path=~/photos,a=b",
    b"vtab\ntask=cifar,model=R14x0.5",
    b"slurm\npartition=gpu,gpus_per_node=1,setup=a,b",
    b"flags\n--config=configs/quickstart.py:seed=1\n--config.batch_size=8",
    b"path\nfile:///tmp/a%20b",
    b"path\n~/a",
    b"fields\n" + json.dumps(fields).encode(),
  ]
  names = tuple(run_config.request().keys())
  roots = ("file:", "file:///", "s3://", "~", "~nobody", "/", "FILE://localhost/", "a:/", "")

  def build(rng: random.Random) -> bytes:
    kind = rng.choice(tuple(_CHECKS))
    if kind == "fields":
      chosen = {rng.choice((*names, "new")): rng.choice(_NUMBERS) for _ in range(rng.randrange(4))}
      return f"{kind}\n{json.dumps({**fields, **chosen})}".encode("utf-8", "surrogateescape")
    if kind == "path":
      return f"{kind}\n{rng.choice(roots)}{rng.choice(_VALUES)}".encode("utf-8", "surrogateescape")
    pairs = ",".join(
      f"{rng.choice(_KEYS)}{rng.choice(('=', '=', '=', '', '=='))}{rng.choice(_VALUES)}"
      for _ in range(rng.randrange(4))
    )
    if kind == "flags":
      file = rng.choice(("configs/quickstart.py", "configs/folder.py", "configs", "", ".", "\0"))
      pairs = f"--config={file}:{pairs}"
      for _ in range(rng.randrange(3)):
        flag = rng.choice((f"--config.{rng.choice(names)}", "--config", "--", "x", "--config.a[0"))
        pairs += f"\n{flag}{rng.choice(('=', '=', '', '.b='))}{rng.choice(_VALUES)}"
    return f"{kind}\n{pairs}".encode("utf-8", "surrogateescape")

  tokens = (b"=", b",", b"--", b":", b"\0", b"~", b"\xff", b"[", b"'", b".", b"\n--config.")
  return target.Target(seeds, build, _check, tokens)


def _check(data: bytes, folder: pathlib.Path) -> bool:
  kind, _, text = data.decode("utf-8", "surrogateescape").partition("\n")
  _CHECKS.get(kind, _base)(text)
  return True


def _resolve(request: run_config.Request) -> None:
  """Resolves a request, where it is of a set that comes with the package."""
  if request.dataset is None:
    request.dataset = "digits"
  if request.dataset in datasets.OWN:
    run_config.prepare(request)
    return
  resolved, _ = run_config.prepare(request)
  parts = pathlib.PurePath(run_config.default_workdir(resolved)).parts
  assert len(parts) == 2, parts
  assert parts[0] == "runs"
  assert parts[1] != ".."


def _base(text: str) -> None:
  _resolve(base.get_config(text))


def _folder(text: str) -> None:
  folder.get_config(text)


def _vtab(text: str) -> None:
  _resolve(vtab.get_config(text))


def _flags(text: str) -> None:
  config_flags.parse(flags.FlagValues(), ["train", *text.split("\n")])


def _fields(text: str) -> None:
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError):
    return  # JSON is the form of the input, not of what users write
  if isinstance(fields, dict):
    request = quickstart.get_config()
    config_flags.override(request, fields)
    _resolve(request)


_CHECKS: dict[str, Callable[[str], object]] = {
  "base": _base,
  "folder": _folder,
  "vtab": _vtab,
  "slurm": slurm.options,
  "flags": _flags,
  "fields": _fields,
  "path": paths.named,
}
