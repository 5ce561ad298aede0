"""Compares this package with timm: random networks as `.safetensors` files, in both directions.

    python -m experiments.exports.timm_round_trip                        # every BiT of timm
    python -m experiments.exports.timm_round_trip resnetv2_50x1_bit      # this one
    python -m experiments.exports.timm_round_trip --write=tests/weights/timm_logits.npz

It needs timm and PyTorch, on a CPU (the extra `exports`). A network of timm's with random numbers
is saved by safetensors and loaded here; one of our own is written by `weights.save` and loaded by
timm, as a checkpoint and as pre-trained weights. Each time both compute the logits of the same
images, and the exit status is 1 if any differ by more than 1e-5 of the largest. R152x4 takes 12 GB
of memory.

The random networks are benign, so that a difference is an error and not rounding. Shifts of group
norm are near 0.5: with shifts near 0, both differ from timm in float64 by 1e-5 of the largest logit
(R50x1). Kernels have a variance near 1, which standardisation divides by: timm adds 1e-8 to it, and
BiT 1e-10, which counts where the variance is small.

With --write, timm's logits of seeded networks are stored; a test compares them with this package
where PyTorch isn't installed.
"""

import argparse
import functools
import gc
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bit_jax import weights
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import paths

TOLERANCE = 1e-5  # of the largest logit
SEEDED = {"R14x0.5": 57, "R50x1": 64}  # architecture: side of the images
NUM_CLASSES = 10
_SIDE = 96


def main(argv: Sequence[str] | None = None) -> int:
  """Compares the networks, or writes the logits; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m experiments.exports.timm_round_trip")
  parser.add_argument("names", nargs="*", metavar="NAME", help="a model of timm; default: all")
  parser.add_argument(
    "--write", type=paths.argument, metavar="FILE", help="store logits for a test"
  )
  args = parser.parse_args(argv)
  if args.write:
    np.savez(args.write, allow_pickle=False, **{name: seeded_logits(name) for name in SEEDED})
    return 0
  largest = 0.0
  for name in args.names or timm_names():
    for direction, difference in round_trip(name):
      print(f"{name:20} {direction:45} {difference:.1e}", flush=True)
      largest = max(largest, difference)
  agree = largest <= TOLERANCE
  print(f"largest difference {largest:.1e}: {'all agree' if agree else 'NOT equal'}")
  return 0 if agree else 1


def timm_names() -> list[str]:
  """Returns every BiT network of timm, small ones first."""
  import timm

  names = timm.list_models("resnetv2_*_bit")
  return sorted(names, key=lambda n: architectures.num_parameters(of_timm(n), NUM_CLASSES))


def of_timm(name: str) -> architectures.Architecture:
  """Returns the architecture of timm's 'resnetv2_50x1_bit' and so on."""
  return architectures.find(f"R{name.removeprefix('resnetv2_').removesuffix('_bit')}")


def round_trip(name: str) -> Iterator[tuple[str, float]]:
  """Yields (direction, largest difference of logits by the largest logit) of a network of timm.

  One network at a time is in memory.
  """
  import safetensors.torch
  import timm

  architecture = of_timm(name)
  pictures = images(0, _SIDE)
  with tempfile.TemporaryDirectory() as folder:
    file = f"{folder}/model.safetensors"
    model = timm.create_model(name, num_classes=NUM_CLASSES).eval()
    _randomise(model)
    safetensors.torch.save_file(model.state_dict(), file)
    theirs = _timm_logits(model, pictures)
    del model
    gc.collect()
    yield (
      "timm's network, loaded here",
      _difference(_own_logits(architecture, file, pictures), theirs),
    )

    weights.save(file, _nested(random_parameters(architecture)))
    ours = _own_logits(architecture, file, pictures)
    gc.collect()
    model = timm.create_model(name, num_classes=NUM_CLASSES, checkpoint_path=file).eval()
    yield "our file, as timm's checkpoint_path", _difference(ours, _timm_logits(model, pictures))
    del model
    gc.collect()
    overlay = {"file": file, "custom_load": False, "num_classes": NUM_CLASSES}
    model = timm.create_model(
      name, pretrained=True, num_classes=NUM_CLASSES, pretrained_cfg_overlay=overlay
    ).eval()
    yield (
      "our file, as timm's pre-trained weights",
      _difference(ours, _timm_logits(model, pictures)),
    )


def seeded_logits(name: str) -> np.ndarray:
  """Returns timm's logits [2, 10] of a network in `SEEDED`, which timm may not have by name."""
  import timm.layers
  import timm.models.resnetv2

  architecture = architectures.find(name)
  model = timm.models.resnetv2.ResNetV2(
    layers=list(architecture.depths),
    width_factor=architecture.width,
    num_classes=NUM_CLASSES,
    stem_type="fixed",
    conv_layer=functools.partial(timm.layers.StdConv2d, eps=1e-8),  # as its BiT networks have it
  ).eval()
  with tempfile.TemporaryDirectory() as folder:
    file = f"{folder}/model.safetensors"
    weights.save(file, _nested(random_parameters(architecture)))
    timm.models.load_checkpoint(model, file)
  return _timm_logits(model, images(0, SEEDED[name]))


def random_parameters(architecture: architectures.Architecture) -> dict[str, np.ndarray]:
  """Returns {parameter: float32 values} that depend on its name and shape alone.

  Kernels have a mean that standardisation must remove. On spreads and shifts see above.
  """
  shapes = architectures.parameter_shapes(architecture, NUM_CLASSES)
  return {name: _random(name, shape) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
  generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
  normal = generator.standard_normal(shape, np.float32)
  if name.endswith("standardized_conv2d/kernel"):
    return normal + np.float32(0.1)
  if name.endswith("kernel"):
    return normal * np.float32(shape[-2] ** -0.5)
  mean = {"gamma": 1.0, "beta": 0.5, "bias": 0.0}[name.rsplit("/")[-1]]
  return normal * np.float32(0.2) + np.float32(mean)


def images(seed: int, side: int) -> np.ndarray:
  """Returns [2, side, side, 3] float32 from -1 to 1: blocks of 8x8 pixels, and noise."""
  generator = np.random.Generator(np.random.Philox(seed))
  blocks = generator.uniform(-0.8, 0.8, (2, side // 8 + 1, side // 8 + 1, 3))
  large = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side]
  return (large + generator.uniform(-0.2, 0.2, large.shape)).astype(np.float32)


def own_logits(
  architecture: architectures.Architecture, params: Any, pictures: np.ndarray
) -> np.ndarray:
  """Returns the logits [2, 10] of this package in float32."""
  model = resnet_v2.create(architecture.name, NUM_CLASSES)
  with jax.default_matmul_precision("highest"):
    logits, _ = jax.jit(model.apply)({"params": params}, pictures)
  return np.asarray(logits)


def _own_logits(
  architecture: architectures.Architecture, file: str, pictures: np.ndarray
) -> np.ndarray:
  loaded = weights.load(file, architecture, head="keep", num_classes=NUM_CLASSES)
  return own_logits(architecture, loaded.params, pictures)


def _nested(params: dict[str, np.ndarray]) -> dict[str, Any]:
  nested: dict[str, Any] = {}
  for name, value in params.items():
    *folders, leaf = name.split("/")
    node = nested
    for folder in folders:
      node = node.setdefault(folder, {})
    node[leaf] = value
  return nested


def _randomise(model: Any) -> None:
  """Draws every parameter like `random_parameters`, by PyTorch's generator."""
  import torch

  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      parameter.normal_(generator=generator)
      if name == "head.fc.weight":
        parameter.mul_(parameter.shape[1] ** -0.5)
      elif parameter.ndim > 1:
        parameter.add_(0.1)
      else:
        parameter.mul_(0.2).add_(1.0 if name.endswith("weight") else 0.5 * ("norm" in name))


def _timm_logits(model: Any, pictures: np.ndarray) -> np.ndarray:
  import torch

  with torch.inference_mode():
    logits: np.ndarray = model(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())).numpy()
  return logits


def _difference(logits: np.ndarray, reference: np.ndarray) -> float:
  return float(np.abs(logits - reference).max() / np.abs(reference).max())


if __name__ == "__main__":
  sys.exit(main())
