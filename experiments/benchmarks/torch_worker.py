"""Measures the same network in PyTorch, as timm has it: a worker, see `workers`.

Runs in an environment of its own, with torch, timm and torchvision (the extra 'bench'). Channels
last; on a GPU under bfloat16 autocast.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)

from experiments.benchmarks import inputs, machine, workers

_GPU = torch.cuda.is_available()
_DEVICE = torch.device("cuda" if _GPU else "cpu")


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  torch.backends.cudnn.benchmark = True  # tries out convolutions, as XLA does
  side, dtype = workers.MATMUL_SIDE, getattr(torch, spec["dtype"])
  matrix = torch.ones((side, side), dtype=dtype, device=_DEVICE)
  workload = workers.comparable(
    spec,
    "gpu" if _GPU else "cpu",
    _step(spec),
    _array,
    lambda: torch.matmul(matrix, matrix)[0, 0].item(),  # waits for the product
    torch.cuda.max_memory_allocated if _GPU else machine.peak_memory,
  )
  if _GPU:
    torch.cuda.reset_peak_memory_stats()
  return workload


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
  bfloat16 = spec["dtype"] == "bfloat16"

  def classify() -> torch.Tensor:
    with torch.inference_mode(), torch.autocast(_DEVICE.type, torch.bfloat16, enabled=bfloat16):
      return forward(images)

  if spec["task"] == "inference":
    return classify
  sgd = torch.optim.SGD(
    network.parameters(), lr=inputs.LEARNING_RATE, momentum=inputs.MOMENTUM, fused=True
  )

  def train() -> torch.Tensor:
    sgd.zero_grad(set_to_none=True)
    with torch.autocast(_DEVICE.type, torch.bfloat16, enabled=bfloat16):
      loss = F.cross_entropy(forward(images), labels)
    loss.backward()
    sgd.step()
    return loss

  return train


def _array(output: torch.Tensor) -> np.ndarray:
  """Returns a step's loss or logits, after the step."""
  return output.detach().float().cpu().numpy()  # on a GPU, copied after all that was sent before


if __name__ == "__main__":
  workers.serve(build)
