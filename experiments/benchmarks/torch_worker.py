"""Measures the same network in PyTorch, as timm has it: a worker, see `workers`.

Runs in an environment of its own, with torch, timm and torchvision (the extra 'bench'). Channels
last; on a GPU under bfloat16 autocast.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)

from experiments.benchmarks import inputs, machine, workers

Step = Callable[[], torch.Tensor]  # returns numbers to compare

_SIDE = 2048  # of the matrices whose product shows what the CPU can do
_TRIES = 5


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  network = timm.create_model(
    f"resnetv2_{spec['architecture'].removeprefix('R')}_bit", num_classes=inputs.NUM_CLASSES
  )
  network.load_pretrained(pathlib.Path(spec["checkpoint"]))
  network = network.to(device, memory_format=torch.channels_last)
  images = torch.from_numpy(inputs.images(spec["batch"], spec["size"])).permute(0, 3, 1, 2)
  labels = torch.from_numpy(inputs.labels(spec["batch"])).long()
  make = {"training": _training, "inference": _inference}[spec["task"]]
  compile_ = torch.compile if spec["compiled"] else lambda network: network
  matmul_flops = _matmul_flops(device, getattr(torch, spec["dtype"]))
  autocast = spec["dtype"] == "bfloat16"
  step = make(network, compile_, autocast, images.to(device), labels.to(device))
  checked = [step().detach().float().cpu().numpy() for _ in range(2)]  # compiled by the first

  def repeat(count: int) -> int:
    for _ in range(count):
      step()
    _wait(device)
    return count * spec["batch"]

  count = workers.steps_for(spec["seconds"], lambda: repeat(1))
  machine.reset_peak_memory()

  info = {
    "device": "gpu" if device.type == "cuda" else "cpu",
    "matmul_flops": matmul_flops,
    "versions": machine.versions(["torch", "timm"]),
  }
  return workers.Workload(
    lambda: repeat(count), info, lambda: _peak_memory(device), lambda: inputs.compared(checked)
  )


def _training(
  network: torch.nn.Module,
  compile_: Callable[[torch.nn.Module], Any],
  autocast: bool,
  images: torch.Tensor,
  labels: torch.Tensor,
) -> Step:
  """Returns a step of SGD on the mean cross-entropy: forward, backward, update."""
  network.train()
  forward = compile_(network)
  sgd = torch.optim.SGD(
    network.parameters(), lr=inputs.LEARNING_RATE, momentum=inputs.MOMENTUM, fused=True
  )

  def step() -> torch.Tensor:
    sgd.zero_grad(set_to_none=True)
    with _autocast(images, autocast):
      loss = F.cross_entropy(forward(images), labels)
    loss.backward()
    sgd.step()
    return loss

  return step


def _inference(
  network: torch.nn.Module,
  compile_: Callable[[torch.nn.Module], Any],
  autocast: bool,
  images: torch.Tensor,
  labels: torch.Tensor,
) -> Step:
  """Returns the classification of a batch."""
  del labels
  network.eval()
  forward = compile_(network)

  def step() -> torch.Tensor:
    with torch.inference_mode(), _autocast(images, autocast):
      return forward(images)

  return step


def _autocast(images: torch.Tensor, enabled: bool) -> contextlib.AbstractContextManager[Any]:
  if not enabled:
    return contextlib.nullcontext()
  return torch.autocast(images.device.type, torch.bfloat16)


def _wait(device: torch.device) -> None:
  if device.type == "cuda":
    torch.cuda.synchronize()


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
  """Returns the FLOP/s of the best of some large matrix products."""
  matrix = torch.ones((_SIDE, _SIDE), dtype=dtype, device=device)
  times = []
  for _ in range(_TRIES):
    start = time.perf_counter()
    torch.matmul(matrix, matrix)
    _wait(device)
    times.append(time.perf_counter() - start)
  return 2 * _SIDE**3 / min(times)


def _peak_memory(device: torch.device) -> int:
  """Returns the peak of the GPU's memory, or of the process's on CPU."""
  if device.type == "cuda":
    return torch.cuda.max_memory_allocated()
  return machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
