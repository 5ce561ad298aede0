"""What computing in bfloat16 changes: logits, and accuracy after fine-tuning.

    python -m experiments.bfloat16 [OUT_FOLDER]

Runs `configs/quickstart.py` with 3 seeds in float32 and in bfloat16: 6 runs; a finished run is not
run again. Then classifies the test images with each float32 run's weights in both. Prints the
table, and writes it to `bfloat16.md` beside this file.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bit_jax import run_config, weights
from bit_jax.configs import quickstart
from bit_jax.data import augmentation, loading
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import exits, numerics
from bit_jax.training import loop

SEEDS = range(3)
_DTYPES = ("float32", "bfloat16")


def main(argv: Sequence[str]) -> None:
  """Runs what is missing and writes the table."""
  out = pathlib.Path(argv[1] if len(argv) > 1 else "runs/bfloat16")
  rows = []
  for seed in SEEDS:
    single, half = (_run(out, dtype, seed) for dtype in _DTYPES)
    rows.append((seed, single, half, *_deviation(_folder(out, "float32", seed), seed)))
  table = format_table(rows)
  (pathlib.Path(__file__).parent / "bfloat16.md").write_text(table, encoding="utf-8")
  print(table)


def format_table(rows: Sequence[tuple[int, float, float, float, float]]) -> str:
  """Returns a Markdown table.

  Args:
    rows: Seed, top-1 in [0, 1] after training in float32 and in bfloat16, and of the former's
      weights the deviation of logits and the share of equal predictions (see `deviation`).
  """
  lines = [
    f"Digits, R14x0.5, quickstart's recipe; computed on {jax.devices()[0].device_kind}:",
    "",
    "| seed | top-1 trained in float32 | in bfloat16 | logits in bfloat16: relative difference | "
    "equal predictions |",
    "|---|---|---|---|---|",
  ]
  for seed, single, half, difference, equal in rows:
    lines.append(
      f"| {seed} | {100 * single:.1f} % | {100 * half:.1f} % | {100 * difference:.2f} % | "
      f"{100 * equal:.1f} % |"
    )
  return "\n".join(lines) + "\n"


def deviation(exact: np.ndarray, other: np.ndarray) -> tuple[float, float]:
  """Compares logits with exact ones, [N, C] each.

  Returns:
    The norm of the difference relative to the norm of the exact ones, and the share of rows whose
    largest value is in the same place.
  """
  difference = np.linalg.norm(other - exact) / np.linalg.norm(exact)
  return float(difference), float(np.mean(other.argmax(1) == exact.argmax(1)))


def _folder(out: pathlib.Path, dtype: str, seed: int) -> pathlib.Path:
  return out / f"{dtype}-s{seed}"


def _config(dtype: str, seed: int) -> Any:
  config = quickstart.get_config(f"seed={seed}")
  config.eval_every = config.total_steps
  config.dtype = dtype
  return config


def _run(out: pathlib.Path, dtype: str, seed: int) -> float:
  return loop.train_and_evaluate(_config(dtype, seed), str(_folder(out, dtype, seed)))["top1"]


def _deviation(folder: pathlib.Path, seed: int) -> tuple[float, float]:
  """Returns `deviation` of a run's weights on its test images, bfloat16 from float32."""
  config, spec = run_config.resolve(_config("float32", seed))
  test = loading.load(spec, config, float("inf")).test.examples
  assert test is not None  # there is room for any number of bytes
  loaded = weights.load(
    folder / "model.npz",
    architectures.find(config.model),
    head="keep",
    num_classes=spec.num_classes,
  )
  exact, half = (
    _logits(
      resnet_v2.create(config.model, spec.num_classes, dtype, jax.default_backend()),
      loaded.params,
      test.images,
      config,
    )
    for dtype in (jnp.float32, jnp.bfloat16)
  )
  return deviation(exact, half)


@numerics.fixed()
def _logits(model: resnet_v2.ResNetV2, params: Any, images: np.ndarray, config: Any) -> np.ndarray:
  """Returns the logits of all images: [N, C] float32."""
  variables = resnet_v2.standardize_params(params, model.dtype)

  @jax.jit
  def classify(images: jax.Array) -> jax.Array:
    return model.apply(variables, augmentation.prepare_eval(images, config.test_size))[0]

  return np.concatenate([classify(part) for part in np.array_split(images, 10)])


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
