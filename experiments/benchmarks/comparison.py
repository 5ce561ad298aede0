"""One network at one size in several implementations: what training and inference benchmarks share.

Workers in processes of their own (`jax_worker`, `torch_worker`) are given the same weights, images
and labels, must agree in what they compute, and then take turns.
"""

import argparse
import contextlib
import dataclasses
import math
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import paths
from experiments.benchmarks import inputs, machine, results, roofline, workers

OURS = "bit_jax"
PYTORCH, FLAX = "PyTorch (timm)", "plain Flax"
PEERS = {"torch": PYTORCH, "flax": FLAX}
_TORCH_PYTHON = pathlib.Path(__file__).parents[2] / ".venv-bench/bin/python"  # by `make bench`
# Relative, of logits and of losses, of which the second step's amplify the rounding of the first's.
_TOLERANCE = {
  ("inference", "float32"): 1e-3,
  ("inference", "bfloat16"): 0.1,
  ("training", "float32"): 5e-3,
  ("training", "bfloat16"): 0.1,
}
_GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True)
class Case:
  """A network, the side of its images in pixels, and how many of them at once."""

  architecture: str
  size: int
  batch: int

  @classmethod
  def parse(cls, text: str) -> "Case":
    """Returns the case of a text such as 'R50x1@128x16'.

    Raises:
      ArgumentTypeError: It is of another form, or there is no such network.
    """
    match = re.fullmatch(r"(.+)@(\d+)x(\d+)", text)
    if not match or match[1] not in architectures.ARCHITECTURES:
      raise argparse.ArgumentTypeError(
        f"{text!r} is not a case such as R50x1@128x16 (network, pixels, batch)"
      )
    return cls(match[1], int(match[2]), int(match[3]))

  def __str__(self) -> str:
    """Returns what tables call it."""
    return f"{self.architecture} {self.size} px batch {self.batch}"


def parser(description: str | None, cases: Mapping[str, Sequence[str]]) -> argparse.ArgumentParser:
  """Returns the command line of such a benchmark.

  Args:
    description: Of the script.
    cases: The default ones, by device.
  """
  about = "; ".join(f"{device}: {','.join(texts)}" for device, texts in cases.items())
  p = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
  p.add_argument("--device", choices=("cpu", "gpu"), help="the GPU where there is one")
  p.add_argument("--full", action="store_true", help="on CPU too the cases that take minutes each")
  p.add_argument("--cases", nargs="+", type=Case.parse, help=f"NETWORK@PIXELSxBATCH ... ({about})")
  p.add_argument("--rounds", type=int, default=5, help="repetitions of each implementation")
  p.add_argument("--seconds", type=float, default=1.0, help="that a repetition takes, at least")
  p.add_argument(
    "--torch_python", default=default_torch_python(), help="a Python with torch and timm"
  )
  p.add_argument(
    "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="both; no name means none"
  )
  p.add_argument(
    "--eager", action="store_true", help="without torch.compile, which compiles for minutes"
  )
  p.add_argument("--out", type=paths.argument, default=results.PATH, help="file to append to")
  return p


def default_torch_python() -> str:
  """Returns the Python of the environment that `make bench` makes, or ours where it isn't."""
  return str(_TORCH_PYTHON) if _TORCH_PYTHON.exists() else sys.executable


def run(
  benchmark: str, task: str, options: argparse.Namespace, cases: Mapping[str, Sequence[str]]
) -> None:
  """Compares the implementations in each case, and prints and records the rows.

  Args:
    benchmark: Its name.
    task: 'training' or 'inference'.
    options: From `parser`.
    cases: The default ones, by device.
  """
  accelerators = machine.describe().accelerators
  if options.device == "gpu" and not accelerators:
    raise SystemExit("error: there is no GPU here that nvidia-smi lists.")
  device = options.device or ("gpu" if accelerators else "cpu")
  default = cases["cpu, full" if options.full and device == "cpu" else device]
  versions = machine.versions_of(options.torch_python, ("torch", "timm"))
  with (
    results.Table(benchmark, versions=versions, path=options.out) as table,
    tempfile.TemporaryDirectory() as folder,
  ):
    for case in options.cases or map(Case.parse, default):
      try:
        for row in compare(case, task, device, options, pathlib.Path(folder)):
          table.add(row)
      except workers.WorkerError as e:
        table.add(results.Row(str(case), task, "images/s", None, note=f"not measured: {e}"))


def compare(
  case: Case, task: str, device: str, options: argparse.Namespace, folder: pathlib.Path
) -> Iterator[results.Row]:
  """Measures one case, and yields its rows: speed and peak memory against each peer.

  Args:
    case: What to run.
    task: 'training' or 'inference'.
    device: 'cpu' or 'gpu'.
    options: From `parser`.
    folder: For the checkpoint; it is kept for further cases of the same network.

  Raises:
    WorkerError: A worker failed after it had been warmed up, or ours could not be started.
  """
  checkpoint = folder / f"{case.architecture}.npz"
  if not checkpoint.exists():
    for other in folder.iterdir():
      other.unlink()
    inputs.write_checkpoint(checkpoint, architectures.find(case.architecture))
  dtype = "float32" if device == "cpu" else "bfloat16"
  spec = {**dataclasses.asdict(case), "task": task, "dtype": dtype, "seconds": options.seconds}
  spec |= {"checkpoint": str(checkpoint), "device": device}
  with contextlib.ExitStack() as stack:
    started, missing = _start(_implementations(options), spec, device, stack)
    if OURS not in started:
      raise workers.WorkerError(f"{case}: {missing[OURS]}")
    _check_agreement(started, _TOLERANCE[task, dtype])
    figures = workers.alternate(list(started.values()), options.rounds)
    measured = [worker.info["matmul_flops"] for worker in started.values()]
  limits = _limits(case, task, device, measured)
  for peer in _peers(options):
    yield from _rows(f"{case} {dtype}", task, peer, figures, missing, limits)


def inference_flops(case: Case) -> int:
  """Returns the operations of classifying one image (see `architectures.forward_flops`)."""
  architecture = architectures.find(case.architecture)
  return architectures.forward_flops(architecture, inputs.NUM_CLASSES, case.size)


def training_flops(case: Case) -> int:
  """Returns the operations that one image takes in training: three times those of inference."""
  return architectures.TRAINING_FACTOR * inference_flops(case)


def agree(numbers: Mapping[str, Sequence[float]], tolerance: float) -> None:
  """Checks that implementations compute the same.

  Args:
    numbers: Logits or losses by implementation, the first of which the others are compared with.
    tolerance: Largest norm of the difference, relative to the norm.

  Raises:
    WorkerError: One of them doesn't; its figures would compare something else.
  """
  (first, expected), *others = numbers.items()
  for name, given in others:
    difference = math.dist(given, expected) / math.hypot(*expected)
    if not difference <= tolerance:
      raise workers.WorkerError(
        f"{name} computes something else than {first}: relative difference {difference:.3g}."
      )


def _check_agreement(started: Mapping[str, workers.Worker], tolerance: float) -> None:
  agree({name: worker.check() for name, worker in started.items()}, tolerance)


def _start(
  implementations: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]],
  spec: Mapping[str, Any],
  device: str,
  stack: contextlib.ExitStack,
) -> tuple[dict[str, workers.Worker], dict[str, str]]:
  """Starts what can be started, one after the other; says why the others can't."""
  # Of the GPU's memory each takes what it needs, not most of it at once.
  environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  environment["JAX_COMPILATION_CACHE_DIR"] = workers.compiled_programs()
  if device == "cpu":
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
  started, missing = {}, {}
  for name, (command, more) in implementations.items():
    start = time.perf_counter()
    try:
      worker = workers.Worker(name, command, {**spec, **more}, environment=environment)
    except workers.WorkerError as e:
      missing[name] = str(e)
      continue
    stack.callback(worker.close)
    print(f"{name} is ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if worker.info["device"] == device:
      started[name] = worker
    else:
      missing[name] = f"it runs on {worker.info['device']}, not on {device}"
  return started, missing


def _implementations(
  options: argparse.Namespace,
) -> dict[str, tuple[Sequence[str], Mapping[str, Any]]]:
  """Returns the command and the part of the spec of each implementation that is asked for."""
  jax_worker = [sys.executable, "-m", "experiments.benchmarks.jax_worker"]
  torch_worker = [options.torch_python, "-m", "experiments.benchmarks.torch_worker"]
  chosen: dict[str, tuple[Sequence[str], Mapping[str, Any]]] = {
    OURS: (jax_worker, {"implementation": "ours"})
  }
  if FLAX in _peers(options):
    chosen[FLAX] = (jax_worker, {"implementation": "plain"})
  if PYTORCH in _peers(options):
    chosen[f"{PYTORCH} eager"] = (torch_worker, {"compiled": False})
    if not options.eager:
      chosen[f"{PYTORCH} compiled"] = (torch_worker, {"compiled": True})
  return chosen


def _peers(options: argparse.Namespace) -> list[str]:
  """Returns what to compare with; [''] for nothing."""
  return [PEERS[peer] for peer in options.peers] or [""]


def _limits(case: Case, task: str, device: str, measured: Sequence[float]) -> dict[str, float]:
  """Returns the images per second at which model FLOP utilisation would be 1, and the roofline's.

  A GPU's FLOP/s are those of its data sheet; a CPU's, of the best matrix product seen.
  """
  training = task == "training"
  flops = training_flops(case) if training else inference_flops(case)
  for name in machine.describe().accelerators if device == "gpu" else ():
    card = roofline.find(name)
    if card:
      architecture = architectures.find(case.architecture)
      bound = roofline.images_per_second(
        card, architecture, case.size, case.batch, training=training
      )
      return {"MFU": card.flops / flops, "of roofline": bound}
  return {"MFU": max(measured) / flops}


def _rows(
  configuration: str,
  task: str,
  peer: str,
  figures: Mapping[str, workers.Figures],
  missing: Mapping[str, str],
  limits: Mapping[str, float],
) -> Iterator[results.Row]:
  """Yields the rows against one peer, of whose forms the fastest counts.

  Args:
    configuration: What was run.
    task: What was done.
    peer: Its name; '' for none.
    figures: Those measured, by name of the implementation.
    missing: Why others weren't.
    limits: Images per second of which the shares are given.
  """
  ours = figures[OURS]
  forms = {name: f for name, f in figures.items() if peer and name.startswith(peer)}
  reasons = [why for name, why in missing.items() if peer and name.startswith(peer)]
  note = f"not measured: {'; '.join(reasons)}" if reasons and not forms else ""
  more: dict[str, Any] = {name: ours.rate / limit for name, limit in limits.items()}
  rate = memory = paired = None
  if forms:
    peer, best = max(forms.items(), key=lambda item: item[1].rate)
    rate, memory = best.rate, best.peak_memory / _GIGABYTE
    paired = workers.speed(ours, best)
    more = workers.spread(ours, best) | more
    more |= {f"peer's {name}": rate / limit for name, limit in limits.items()}
    more |= {f"images/s {name}": f.rate for name, f in forms.items() if name != peer}
  yield results.Row(configuration, task, "images/s", ours.rate, peer, rate, note, more, paired)
  yield results.Row(
    configuration, "peak memory", "GB", ours.peak_memory / _GIGABYTE, peer, memory, note
  )
