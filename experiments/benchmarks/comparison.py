"""One network in several implementations: what the training and inference benchmarks share.

Workers in processes of their own (`jax_worker`, `torch_worker`) get the same weights, images and
labels, must compute the same, and then take turns.
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
from bit_jax.runtime import errors
from experiments.benchmarks import inputs, machine, results, roofline, workers

OURS = "bit_jax"
PYTORCH, FLAX = "PyTorch (timm)", "plain Flax"
PEERS = {"torch": PYTORCH, "flax": FLAX}
_TASKS = {"train_step": "training", "inference": "inference"}
_BENCH = pathlib.Path(__file__).parents[2] / ".venv-bench/bin/python"  # created by `make bench`
TORCH_PYTHON = str(_BENCH) if _BENCH.exists() else sys.executable
# Relative, of logits and of losses. The second step's loss amplifies the first's rounding errors.
_TOLERANCE = {"inference": 1e-3, "training": 5e-3}
_BFLOAT16_TOLERANCE = 0.1
_GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True)
class Case:
  """A network, the side of its images in pixels, and the number of images in a batch."""

  architecture: str
  size: int
  batch: int

  @classmethod
  def parse(cls, text: str) -> "Case":
    """Returns the case of a text such as 'R50x1@128x16'.

    Raises:
      ArgumentTypeError: It has another form, or the network is unknown.
    """
    match = re.fullmatch(r"(.+)@(\d+)x(\d+)", text)
    if not match or match[1] not in architectures.ARCHITECTURES:
      raise argparse.ArgumentTypeError(
        f"{text!r} is not a case such as R50x1@128x16 (network, pixels, batch)"
      )
    return cls(match[1], int(match[2]), int(match[3]))

  def __str__(self) -> str:
    """Returns its name in tables."""
    return f"{self.architecture} {self.size} px batch {self.batch}"


def parser(description: str | None, cases: Mapping[str, Sequence[str]]) -> argparse.ArgumentParser:
  """Returns the command line of a comparison.

  Args:
    description: The script's docstring.
    cases: The default cases, by device.
  """
  about = "; ".join(f"{device}: {','.join(texts)}" for device, texts in cases.items())
  p = results.parser(description)
  p.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU, if there is one")
  p.add_argument("--full", action="store_true", help="add the CPU cases that take minutes each")
  p.add_argument("--cases", nargs="+", type=Case.parse, help=f"NETWORK@PIXELSxBATCH ... ({about})")
  p.add_argument("--seconds", type=float, default=1.0, help="minimum length of a repetition")
  p.add_argument("--torch_python", default=TORCH_PYTHON, help="a Python with torch and timm")
  p.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none, one or both")
  p.add_argument(
    "--eager", action="store_true", help="skip torch.compile, which compiles for minutes"
  )
  return p


def main(
  benchmark: str,
  description: str | None,
  cases: Mapping[str, Sequence[str]],
  argv: Sequence[str],
) -> None:
  """Compares the implementations in each case, prints and records the rows.

  Args:
    benchmark: 'train_step' or 'inference'.
    description: The script's docstring.
    cases: The default cases, by device.
    argv: The command line.
  """
  options = parser(description, cases).parse_args(argv[1:])
  accelerators = machine.accelerators()
  if options.device == "gpu" and not accelerators:
    raise errors.UserError("--device=gpu, but nvidia-smi lists no GPU.")
  device = options.device or ("gpu" if accelerators else "cpu")
  chosen = options.cases or map(
    Case.parse, cases["cpu, full" if options.full and device == "cpu" else device]
  )
  rows = _all_rows(chosen, _TASKS[benchmark], device, options)
  versions = machine.versions_of(options.torch_python, ("torch", "timm"))
  results.record(benchmark, rows, options.out, versions)


def _all_rows(
  cases: Sequence[Case] | Iterator[Case], task: str, device: str, options: argparse.Namespace
) -> Iterator[results.Row]:
  """Yields the rows of each case; a case that fails doesn't stop the others."""
  with tempfile.TemporaryDirectory() as folder:
    for case in cases:
      try:
        yield from compare(case, task, device, options, pathlib.Path(folder))
      except workers.WorkerError as e:
        yield results.Row(str(case), task, "images/s", None, note=f"not measured: {e}")


def compare(
  case: Case, task: str, device: str, options: argparse.Namespace, folder: pathlib.Path
) -> Iterator[results.Row]:
  """Measures one case, and yields its rows: speed and peak memory against each peer.

  Args:
    case: What to run.
    task: 'training' or 'inference'.
    device: 'cpu' or 'gpu'.
    options: From `parser`.
    folder: For the checkpoint, which further cases of the same network use again.

  Raises:
    WorkerError: A worker failed after its warm-up, or ours could not be started.
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
    started, missing = _start(spec, device, options, stack)
    if OURS not in started:
      raise workers.WorkerError(missing[OURS])
    tolerance = _TOLERANCE[task] if dtype == "float32" else _BFLOAT16_TOLERANCE
    agree({name: w.ask("check") for name, w in started.items()}, tolerance)
    figures = workers.alternate(started, options.rounds)
    matmul_flops = max(worker.info["matmul_flops"] for worker in started.values())
  limits = _limits(case, task, device, matmul_flops)
  for peer in [PEERS[peer] for peer in options.peers] or [""]:
    yield from _rows(f"{case} {dtype}", task, peer, figures, missing, limits)


def inference_flops(case: Case) -> int:
  """Returns the operations of classifying one image (see `architectures.forward_flops`)."""
  architecture = architectures.find(case.architecture)
  return architectures.forward_flops(architecture, inputs.NUM_CLASSES, case.size)


def training_flops(case: Case) -> int:
  """Returns the operations of training on one image: three times those of inference."""
  return architectures.TRAINING_FACTOR * inference_flops(case)


def agree(numbers: Mapping[str, Sequence[float]], tolerance: float) -> None:
  """Checks that implementations compute the same.

  Args:
    numbers: Logits or losses by implementation; the others are compared with the first.
    tolerance: Largest norm of the difference, relative to the norm.

  Raises:
    WorkerError: One of them computes something else, so that figures can't be compared.
  """
  (first, expected), *others = numbers.items()
  for name, given in others:
    difference = math.dist(given, expected) / math.hypot(*expected)
    if not difference <= tolerance:
      raise workers.WorkerError(
        f"{name} and {first} compute different results (relative difference {difference:.3g})."
      )


def _start(
  spec: Mapping[str, Any], device: str, options: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[dict[str, workers.Worker], dict[str, str]]:
  """Returns the workers that could be started, and why the others could not, by name."""
  jax = ("experiments.benchmarks.jax_worker", sys.executable)
  torch = ("experiments.benchmarks.torch_worker", options.torch_python)
  implementations: list[tuple[str, tuple[str, str], dict[str, Any]]]
  implementations = [(OURS, jax, {"implementation": "ours"})]
  if "flax" in options.peers:
    implementations.append((FLAX, jax, {"implementation": "plain"}))
  if "torch" in options.peers:
    implementations.append((f"{PYTORCH} eager", torch, {"compiled": False}))
    if not options.eager:
      implementations.append((f"{PYTORCH} compiled", torch, {"compiled": True}))
  # Without preallocation, the implementations share the GPU's memory.
  environment = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": workers.compiled_programs(),
  }
  if device == "cpu":
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
  started, missing = {}, {}
  for name, (module, python), more in implementations:
    start = time.perf_counter()
    try:
      worker = workers.Worker({**spec, **more}, module, python=python, environment=environment)
    except workers.WorkerError as e:
      missing[name] = str(e)
      continue
    stack.callback(worker.close)
    print(f"{name} is ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if worker.info["device"] == device:
      started[name] = worker
    else:
      missing[name] = f"It runs on {worker.info['device']} instead of {device}."
  return started, missing


def _limits(case: Case, task: str, device: str, matmul_flops: float) -> dict[str, float]:
  """Returns the images per second at a model FLOP utilisation of 1, and the roofline's.

  A GPU's FLOP/s are those of its data sheet; a CPU's, `matmul_flops`.
  """
  training = task == "training"
  flops = training_flops(case) if training else inference_flops(case)
  for name in machine.accelerators() if device == "gpu" else ():
    if card := roofline.find(name):
      bound = roofline.images_per_second(
        card, architectures.find(case.architecture), case.size, case.batch, training=training
      )
      return {"MFU": card.flops / flops, "of roofline": bound}
  return {"MFU": matmul_flops / flops}


def _rows(
  configuration: str,
  task: str,
  peer: str,
  figures: Mapping[str, workers.Figures],
  missing: Mapping[str, str],
  limits: Mapping[str, float],
) -> Iterator[results.Row]:
  """Yields the rows against one peer ('' for none), of whose variants the fastest counts.

  Args:
    configuration: What was run.
    task: 'training' or 'inference'.
    peer: Its name; variants have names that start with it.
    figures: The measurements, by implementation.
    missing: Why other implementations were not measured.
    limits: Images per second of which the shares are reported.
  """
  ours = figures[OURS]
  more: dict[str, Any] = {name: ours.rate / limit for name, limit in limits.items()}
  variants = {name: f for name, f in figures.items() if peer and name.startswith(peer)}
  if variants:
    peer, best = max(variants.items(), key=lambda item: item[1].rate)
    more |= {f"peer's {name}": best.rate / limit for name, limit in limits.items()}
    more |= {f"images/s {name}": f.rate for name, f in variants.items() if name != peer}
    yield results.rates(configuration, task, ours, peer, best, more)
    memory, note = best.peak_memory / _GIGABYTE, ""
  else:
    reasons = [why for name, why in missing.items() if peer and name.startswith(peer)]
    memory, note = None, f"not measured: {'; '.join(reasons)}" if reasons else ""
    yield results.Row(configuration, task, "images/s", ours.rate, peer, None, note, more)
  own = ours.peak_memory / _GIGABYTE
  yield results.Row(configuration, "peak memory", "GB", own, peer, memory, note)
