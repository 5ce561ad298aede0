"""Measures the same network in PyTorch, as timm has it: a worker, see `workers`.

Runs in an environment of its own, with torch, timm and torchvision (the extra 'bench'). Channels
last; on a GPU under bfloat16 autocast.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)

from experiments.benchmarks import inputs, machine, workers

Step = Callable[[], torch.Tensor]  # returns numbers to compare
Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  torch.backends.cudnn.benchmark = True  # tries out convolutions, as XLA does
  network = timm.create_model(
    f"resnetv2_{spec['architecture'].removeprefix('R')}_bit", num_classes=inputs.NUM_CLASSES
  )
  network.load_pretrained(pathlib.Path(spec["checkpoint"]))
  network = network.to(device, memory_format=torch.channels_last)
  images = torch.from_numpy(inputs.images(spec["batch"], spec["size"])).permute(0, 3, 1, 2)
  labels = torch.from_numpy(inputs.labels(spec["batch"])).long()
  images, labels = images.to(device), labels.to(device)
  compile_ = torch.compile if spec["compiled"] else lambda network: network
  matmul_flops = _matmul_flops(device, getattr(torch, spec["dtype"]))
  autocast = _autocast(device, spec["dtype"] == "bfloat16")
  if spec["task"] == "training":
    step = _training(network, compile_, autocast, images, labels)
  else:
    step = _inference(network, compile_, autocast, images)
  checked = [step().detach().float().cpu().numpy() for _ in range(2)]  # compiled by the first

  def repeat(count: int) -> int:
    for _ in range(count):
      step()
    _wait(device)
    return count * spec["batch"]

  count = workers.steps_for(spec["seconds"], lambda: repeat(1))
  _reset_peak_memory(device)

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
  autocast: Autocast,
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
    with autocast():
      loss = F.cross_entropy(forward(images), labels)
    loss.backward()
    sgd.step()
    return loss

  return step


def _inference(
  network: torch.nn.Module,
  compile_: Callable[[torch.nn.Module], Any],
  autocast: Autocast,
  images: torch.Tensor,
) -> Step:
  """Returns the classification of a batch."""
  network.eval()
  forward = compile_(network)

  def step() -> torch.Tensor:
    with torch.inference_mode(), autocast():
      return forward(images)

  return step


def _autocast(device: torch.device, enabled: bool) -> Autocast:
  if not enabled:
    return contextlib.nullcontext
  return functools.partial(torch.autocast, device.type, torch.bfloat16)


def _wait(device: torch.device) -> None:
  if device.type == "cuda":
    torch.cuda.synchronize()


def _matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
  matrix = torch.ones((machine.MATMUL_SIDE, machine.MATMUL_SIDE), dtype=dtype, device=device)

  def multiply() -> None:
    torch.matmul(matrix, matrix)
    _wait(device)

  return machine.matmul_flops(multiply)


def _reset_peak_memory(device: torch.device) -> None:
  if device.type == "cuda":
    torch.cuda.reset_peak_memory_stats()
  machine.reset_peak_memory()


def _peak_memory(device: torch.device) -> int:
  """Returns the peak of the GPU's memory, or of the process's on CPU."""
  if device.type == "cuda":
    return torch.cuda.max_memory_allocated()
  return machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
