"""The effect of computing in bfloat16 on logits, and on accuracy after fine-tuning.

    python -m experiments.bfloat16 [OUT_FOLDER]

Trains `configs/quickstart.py` with 3 seeds in float32 and in bfloat16: 6 runs, of which finished
ones are not repeated. Then classifies the test images with each float32 run's weights in both
formats. Prints the table, and writes it to `bfloat16.md` beside this file.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bit_jax import weights
from bit_jax.configs import quickstart
from bit_jax.data import augmentation
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import exits, numerics
from bit_jax.training import loop
from experiments import evaluation

SEEDS = range(3)
_FORMATS = ("float32", "bfloat16")
_HEADER = """\
Digits, R14x0.5, quickstart's recipe; computed on {device}:

| seed | top-1 trained in float32 | in bfloat16 | logits in bfloat16: relative difference | \
equal predictions |
|---|---|---|---|---|
"""


def main(argv: Sequence[str]) -> None:
  """Trains the runs that are missing, and writes the table."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("out", nargs="?", default="runs/bfloat16", help="default: %(default)s")
  out = pathlib.Path(parser.parse_args(argv[1:]).out)
  rows = []
  for seed in SEEDS:
    folders = [out / f"{dtype}-s{seed}" for dtype in _FORMATS]
    single, half = (_top1(f, d, seed) for f, d in zip(folders, _FORMATS, strict=True))
    rows.append((seed, single, half, *deviation(*_logits(folders[0] / "model.npz"))))
  table = format_table(rows)
  pathlib.Path(__file__).with_suffix(".md").write_text(table, encoding="utf-8")
  print(table)


def format_table(rows: Sequence[tuple[int, float, float, float, float]]) -> str:
  """Returns a Markdown table.

  Args:
    rows: Seed, top-1 in [0, 1] after training in float32 and in bfloat16, and `deviation` of the
      former's weights.
  """
  text = _HEADER.format(device=jax.devices()[0].device_kind)
  for seed, single, half, difference, equal in rows:
    cells = f"{single:.1%} | {half:.1%} | {difference:.2%} | {equal:.1%}".replace("%", " %")
    text += f"| {seed} | {cells} |\n"
  return text


def deviation(exact: np.ndarray, other: np.ndarray) -> tuple[float, float]:
  """Compares logits with exact ones, [N, C] each.

  Returns:
    The norm of the difference relative to the norm of the exact ones, and the share of rows with
    equal predictions.
  """
  difference = np.linalg.norm(other - exact) / np.linalg.norm(exact)
  return float(difference), float(np.mean(other.argmax(1) == exact.argmax(1)))


def _top1(folder: pathlib.Path, dtype: str, seed: int) -> float:
  """Trains a run, unless it is finished, and returns its top-1."""
  config = quickstart.get_config(f"seed={seed}")
  config.eval_every = config.total_steps
  config.dtype = dtype
  return loop.train_and_evaluate(config, str(folder))["top1"]


@numerics.fixed()
def _logits(path: pathlib.Path) -> list[np.ndarray]:
  """Returns the logits of the test images in both formats, [N, C] float32 each."""
  config = quickstart.get_config("")
  tests = evaluation.load(config.dataset, evaluation.View(config.crop))
  assert tests.part.examples is not None  # 1,000 images of 8 x 8 pixels fit in memory
  parts = np.array_split(tests.part.examples.images, 10)
  classes = tests.spec.num_classes
  params = weights.load(
    path, architectures.find(config.model), head="keep", num_classes=classes
  ).params
  found = []
  for dtype in _FORMATS:
    model = resnet_v2.create(config.model, classes, dtype, jax.default_backend())
    variables = resnet_v2.standardize_params(params, model.dtype)
    logits = [_classify(variables, part, model=model, size=config.crop) for part in parts]
    found.append(np.concatenate(logits))
  return found


@functools.partial(jax.jit, static_argnames=("model", "size"))
def _classify(
  variables: Any, images: jax.Array, *, model: resnet_v2.ResNetV2, size: int
) -> jax.Array:
  return model.apply(variables, augmentation.prepare_eval(images, size))[0]


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
