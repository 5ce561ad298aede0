"""Run folders as `bit_jax.train` and a sweep leave them, made without training."""

import json

import resolving

from bit_jax import run_config
from bit_jax.configs import base, quickstart
from experiments import reduced as rule
from experiments.results import collect, seeds
from experiments.sweeping import grid

REDUCED = {"resize": rule.RESIZE, "crop": rule.CROP, "batch_size": rule.BATCH_SIZE}
SHA = "3ef653a3ac9c67b29b9e534fc9f40efbe3b0174b94c0d0ae7864c39250864846"


def config(arguments="model=R14x0.5", dataset="cifar10", **fields):
  """Returns a resolved config; `length` stretches the rule's schedule."""
  given = base.get_config(arguments)
  given.name, given.dataset = dataset.replace("/", "-"), dataset  # as configs/vtab.py has it
  length = fields.pop("length", None)
  given.update(fields)
  if length is not None:
    given.total_steps = round(resolving.resolve(given)[0].total_steps * length)
  return resolving.resolve(given)[0]


def reduced(arguments="model=R14x0.5", dataset="cifar10", **fields):
  """Returns a config of the reduced rule."""
  return config(
    arguments, dataset, **{**REDUCED, "reason": rule.REASON, "length": 1 / rule.SHORTER, **fields}
  )


def few(arguments, top1, **fields):
  """Returns what `written` takes of a small network's run by the reduced rule."""
  return reduced(f"model=R14x0.5,{arguments}", **fields), top1


def planned(name, after=None, mistake=None, steps=100):
  """Returns a run of a sweep: the quickstart in `steps` steps, or one that can't be run."""
  request = quickstart.get_config()
  request.total_steps = steps
  resolved, spec = resolving.resolve(request)
  return grid.Planned(name, resolved, None if mistake else spec, {}, after, mistake)


def finished(folder):
  """Makes the least of a finished run."""
  folder.mkdir(parents=True)
  (folder / "result.json").write_text(json.dumps({"top1": 0.5}))


def write(
  folder,
  resolved,
  top1,
  *,
  sha=None,
  result=(),
  environment=(),
  sweep=None,
  start=None,
  seconds=(71.25,),
  began="2026-11-22T08:51:00+00:00",
):
  """Writes the folder of a finished run; `result` and `environment` change what they hold.

  A field that is set to None there is left out. With a `sweep`, its attempts took `seconds`, and
  all of them `began` at one time.
  """
  _, spec = resolving.resolve(resolved)
  if sha is None and resolved.weights != "none":
    sha = SHA
  dump(folder / "config.json", resolved.to_dict())
  described = {
    "started": "2026-11-22T08:51:09+00:00",
    "machine": "Linux x86_64, 2 cores",
    "device": "cpu",
    "num_devices": 1,
    "data": f"{resolved.dataset} 3.0.2",
    "weights": resolved.weights,
    "weights_sha256": sha,
    "dtype": "float32",
    "resumed": [],
  }
  dump(folder / "environment.json", _without_none({**described, **dict(environment)}))
  found = {
    "loss": 1.5,
    "top1": top1,
    "num_train": run_config.num_examples(resolved, spec),
    "num_test": spec.num_test,
    "steps": resolved.total_steps,
    "seconds": 23.5,
    "images_per_second": 272.0,
    "startup_seconds": 9.75,
    "left_out": {},
    "warnings": [],
  }
  dump(folder / "result.json", _without_none({**found, **dict(result)}))
  if sweep is not None:
    labels = {} if start is None else {"start": start}
    attempts = [
      {"started": began, "seconds": s, "outcome": o}
      for s, o in zip(seconds, ["failed"] * (len(seconds) - 1) + ["finished"], strict=True)
    ]
    dump(folder / "sweep.json", {"sweep": sweep, "labels": labels, "attempts": attempts})
  return folder


def collected(folder):
  """Returns what the report finds in a folder."""
  return collect.collect(folder)


def only(folder):
  """Returns the one run that counts in a folder."""
  (run,) = collected(folder).runs
  return run


def written(folder, *runs):
  """Returns the runs that count of those given as (config, top1, and what else `write` takes)."""
  for number, (resolved, top1, *more) in enumerate(runs):
    write(folder / str(number), resolved, top1, **(more[0] if more else {}))
  return collected(folder).runs


def table(folder, *runs):
  """Returns `seeds.frame` of what `written` returns."""
  return seeds.frame(written(folder, *runs))


def dump(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(value if isinstance(value, str) else json.dumps(value, default=list))


def _without_none(value):
  return {k: v for k, v in value.items() if v is not None or k == "weights_sha256"}
