"""Measures the same network in PyTorch, as timm has it: a worker, see `workers`.

Runs in an environment of its own, with torch, timm and torchvision (the extra 'bench'). Channels
last; on a GPU under bfloat16 autocast.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)

from experiments.benchmarks import inputs, machine, workers

_GPU = torch.cuda.is_available()
_DEVICE = torch.device("cuda" if _GPU else "cpu")


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  torch.backends.cudnn.benchmark = True  # tries out convolutions, as XLA does
  dtype = getattr(torch, spec["dtype"])
  matrix = torch.ones((machine.MATMUL_SIDE, machine.MATMUL_SIDE), dtype=dtype, device=_DEVICE)
  matmul_flops = machine.matmul_flops(lambda: _wait(torch.matmul(matrix, matrix)))
  step = _step(spec)
  # The first step compiles it.
  checked = inputs.compared([step().detach().float().cpu().numpy() for _ in range(2)])
  repeat = workers.repetition(step, _wait, spec["batch"], spec["seconds"])
  machine.reset_peak_memory()
  if _GPU:
    torch.cuda.reset_peak_memory_stats()
  info = {"device": "gpu" if _GPU else "cpu", "matmul_flops": matmul_flops}
  peak_memory = torch.cuda.max_memory_allocated if _GPU else machine.peak_memory
  return workers.Workload(repeat, info, peak_memory, lambda: checked)


def _step(spec: dict[str, Any]) -> Callable[[], torch.Tensor]:
  """Returns a step of SGD on the mean cross-entropy (returns the loss), or a classification."""
  name = f"resnetv2_{spec['architecture'].removeprefix('R')}_bit"
  network = timm.create_model(name, num_classes=inputs.NUM_CLASSES)
  network.load_pretrained(pathlib.Path(spec["checkpoint"]))
  network = network.to(_DEVICE, memory_format=torch.channels_last)
  network.train(spec["task"] == "training")
  forward = torch.compile(network) if spec["compiled"] else network
  images = torch.from_numpy(inputs.images(spec["batch"], spec["size"])).permute(0, 3, 1, 2)
  images = images.to(_DEVICE)
  labels = torch.from_numpy(inputs.labels(spec["batch"])).long().to(_DEVICE)

  def autocast() -> contextlib.AbstractContextManager[Any]:
    if spec["dtype"] == "float32":
      return contextlib.nullcontext()
    return torch.autocast(_DEVICE.type, torch.bfloat16)

  def classify() -> torch.Tensor:
    with torch.inference_mode(), autocast():
      return forward(images)

  if spec["task"] == "inference":
    return classify
  sgd = torch.optim.SGD(
    network.parameters(), lr=inputs.LEARNING_RATE, momentum=inputs.MOMENTUM, fused=True
  )

  def train() -> torch.Tensor:
    sgd.zero_grad(set_to_none=True)
    with autocast():
      loss = F.cross_entropy(forward(images), labels)
    loss.backward()
    sgd.step()
    return loss

  return train


def _wait(_: object) -> None:
  if _GPU:
    torch.cuda.synchronize()


if __name__ == "__main__":
  workers.serve(build)
