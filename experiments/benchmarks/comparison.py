"""One network in several implementations: what the training and inference benchmarks share.

Workers in processes of their own (`jax_worker`, `torch_worker`) get the same weights, images and
labels, must compute the same, and then take turns.
"""

import argparse
import contextlib
import functools
import math
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from bit_jax.models import architectures
from bit_jax.runtime import devices, errors, exits
from experiments.benchmarks import inputs, machine, results, roofline, workers

OURS = "bit_jax"
PYTORCH, FLAX = "PyTorch (timm)", "plain Flax"
Cases = Mapping[str, Sequence[str]]
PEERS = {"torch": PYTORCH, "flax": FLAX}
_TASKS = {"train_step": "training", "inference": "inference"}
_BENCH = pathlib.Path(__file__).parents[2] / ".venv-bench/bin/python"  # created by `make bench`
TORCH_PYTHON = str(_BENCH) if _BENCH.exists() else sys.executable
# Relative, of logits and of losses. The second step's loss amplifies the first's rounding errors.
_TOLERANCE = {"inference": 1e-3, "training": 5e-3}
_BFLOAT16_TOLERANCE = 0.1


class Case(NamedTuple):
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

  def flops(self, task: str) -> int:
    """Returns the operations of 'inference' or of 'training' on one image."""
    network = architectures.find(self.architecture)
    forward = architectures.forward_flops(network, inputs.NUM_CLASSES, self.size)
    return forward * (architectures.TRAINING_FACTOR if task == "training" else 1)


def run(benchmark: str, description: str | None, cases: Cases) -> NoReturn:
  """Runs the program of a comparison, and exits; arguments as of `main`."""
  program = functools.partial(main, benchmark, description, cases)
  sys.exit(exits.run(program, sys.argv, needs_reader=False))


def main(benchmark: str, description: str | None, cases: Cases, argv: Sequence[str]) -> None:
  """Compares the implementations in each case, prints and records the rows.

  Args:
    benchmark: 'train_step' or 'inference'.
    description: The script's docstring.
    cases: The default cases, by device.
    argv: The command line.
  """
  about = "; ".join(f"{device}: {','.join(texts)}" for device, texts in cases.items())
  p = results.parser(description)
  p.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU, if there is one")
  p.add_argument("--full", action="store_true", help="add the CPU cases that take minutes each")
  p.add_argument("--cases", nargs="+", type=Case.parse, help=f"NETWORK@PIXELSxBATCH ... ({about})")
  p.add_argument("--seconds", type=float, default=1.0, help="minimum length of a repetition")
  p.add_argument("--torch_python", default=TORCH_PYTHON, help="a Python with torch and timm")
  p.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none, one or both")
  p.add_argument("--eager", action="store_true", help="skip torch.compile, which takes minutes")
  options = p.parse_args(argv[1:])
  accelerators = machine.accelerators()
  if options.device == "gpu" and not accelerators:
    raise errors.UserError("--device=gpu, but nvidia-smi lists no GPU.")
  options.device = options.device or ("gpu" if accelerators else "cpu")
  default = cases["cpu, full" if options.full and options.device == "cpu" else options.device]
  rows = _all_rows(options.cases or map(Case.parse, default), _TASKS[benchmark], options)
  versions = machine.versions(("torch", "timm"), options.torch_python)
  results.record(benchmark, rows, options.out, versions)


def _all_rows(
  cases: Sequence[Case] | Iterator[Case], task: str, options: argparse.Namespace
) -> Iterator[results.Row]:
  """Yields the rows of each case; a case that fails doesn't stop the others."""
  with tempfile.TemporaryDirectory() as folder:
    for case in cases:
      try:
        yield from compare(case, task, options, pathlib.Path(folder))
      except workers.WorkerError as e:
        yield results.Row(str(case), task, "images/s", None, note=f"not measured: {e}")


def compare(
  case: Case, task: str, options: argparse.Namespace, folder: pathlib.Path
) -> Iterator[results.Row]:
  """Measures one case, and yields its rows: speed and peak memory against each peer.

  Args:
    case: What to run.
    task: 'training' or 'inference'.
    options: Options of the command line; the device is 'cpu' or 'gpu'.
    folder: For the checkpoint, which further cases of the same network use again.

  Raises:
    WorkerError: A worker failed after its warm-up, or ours could not be started.
  """
  checkpoint = folder / f"{case.architecture}.npz"
  if not checkpoint.exists():
    for other in folder.iterdir():
      other.unlink()
    inputs.write_checkpoint(checkpoint, architectures.find(case.architecture))
  dtype = _dtype(options.device)
  spec = {**case._asdict(), "task": task, "dtype": dtype, "seconds": options.seconds}
  spec |= {"checkpoint": str(checkpoint), "device": options.device}
  figures, missing, matmul_flops = _measure(spec, options)
  ours, limits = figures[OURS], limits_of(case, task, options.device, matmul_flops)
  configuration = f"{case} {dtype}"
  for peer in [PEERS[peer] for peer in options.peers] or ["no peer"]:
    more: dict[str, Any] = {name: ours.rate / limit for name, limit in limits.items()}
    variants = {name: f for name, f in figures.items() if name.startswith(peer)}
    if variants:  # the fastest counts
      name, best = max(variants.items(), key=lambda item: item[1].rate)
      more |= {f"peer's {limit}": best.rate / limits[limit] for limit in limits}
      more |= {f"images/s {other}": f.rate for other, f in variants.items() if other != name}
      yield results.rates(configuration, task, ours, name, best, more)
      memory, note = best.gigabytes, ""
    else:
      reasons = [why for name, why in missing.items() if name.startswith(peer)]
      name, memory, note = peer, None, f"not measured: {'; '.join(reasons)}" if reasons else ""
      yield results.Row(configuration, task, "images/s", ours.rate, peer, None, note, more)
    yield results.Row(configuration, "peak memory", "GB", ours.gigabytes, name, memory, note)


def _dtype(device: str) -> str:
  """Returns the dtype that a run on 'cpu' or 'gpu' would use here; JAX starts only in workers."""
  capability = machine.compute_capability() if device == "gpu" else None
  return devices.compute_dtype("auto", devices.Description(device, "", None, 1, 1, capability)).name


def _measure(
  spec: workers.Spec, options: argparse.Namespace
) -> tuple[dict[str, workers.Figures], dict[str, str], float]:
  """Measures the implementations that can be started.

  Returns:
    The measurements, by implementation; why others were not measured, by implementation; and the
    FLOP/s of the fastest matrix product of any.
  """
  started, missing = {}, {}
  with contextlib.ExitStack() as stack:
    for name, own in _implementations(options):
      start = time.perf_counter()
      try:
        started[name] = stack.enter_context(workers.Worker({**spec, **own}))
      except workers.WorkerError as e:
        if name == OURS:
          raise
        missing[name] = str(e)
      else:
        print(f"{name} is ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    tolerance = _TOLERANCE[spec["task"]] if spec["dtype"] == "float32" else _BFLOAT16_TOLERANCE
    agree({name: worker.info["numbers"] for name, worker in started.items()}, tolerance)
    fastest = max(worker.info["matmul_flops"] for worker in started.values())
    return workers.alternate(started, options.rounds), missing, fastest


def _implementations(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the name of each implementation, ours first, and its part of a worker's spec."""
  # Without preallocation, the implementations share the GPU's memory.
  environment = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": workers.compiled_programs(),
  }
  if options.device == "cpu":
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
  jax = {"module": "experiments.benchmarks.jax_worker", "environment": environment}
  torch = {**jax, "module": "experiments.benchmarks.torch_worker", "python": options.torch_python}
  yield OURS, {**jax, "implementation": "ours"}
  if "flax" in options.peers:
    yield FLAX, {**jax, "implementation": "plain"}
  if "torch" in options.peers:
    yield f"{PYTORCH} eager", {**torch, "compiled": False}
    if not options.eager:
      yield f"{PYTORCH} compiled", {**torch, "compiled": True}


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


def limits_of(case: Case, task: str, device: str, matmul_flops: float) -> dict[str, float]:
  """Returns the images per second at a model FLOP utilisation of 1, and the roofline's.

  A GPU's FLOP/s are those of its data sheet; a CPU's, `matmul_flops`.
  """
  card = roofline.find(machine.accelerators() if device == "gpu" else ())
  if not card:
    return {"MFU": matmul_flops / case.flops(task)}
  network, training = architectures.find(case.architecture), task == "training"
  operations = roofline.operations(network, case.size, case.batch, training=training)
  bound = card.images_per_second(operations)
  return {"MFU": card.flops / case.flops(task), "of roofline": bound}
