"""Puts a finished run's weights into the package as its embedded checkpoint, with a model card.

    python -m experiments.embed_checkpoint RUN_FOLDER [DATA_DIR]

Kernels become float16, which halves the file and, since they are standardised on use, changes
little: the card states the accuracy of the file itself, evaluated anew on the CIFAR-100 test set.
"""

import pathlib
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runs import run_folder
from bit_jax.runtime import errors, exits
from experiments import evaluation

MODEL = "R14x0.5"
NAME = weights.default_for(MODEL)
_TEMPLATE = pathlib.Path(__file__).parent / "model_card_template.md"


def main(argv: Sequence[str]) -> None:
  """Writes the checkpoint and the card.

  Raises:
    UserError: The folder holds no finished run of the model on CIFAR-100.
  """
  if len(argv) not in (2, 3):
    raise errors.UserError("Usage: python -m experiments.embed_checkpoint RUN_FOLDER [DATA_DIR]")
  run = pathlib.Path(argv[1])
  config, result = (
    run_folder.read_json(run / run_folder.CONFIG),
    run_folder.read_json(run / run_folder.RESULT),
  )
  if not config or not result or (config["model"], config["dataset"]) != (MODEL, "cifar100"):
    raise errors.UserError(f"{run} holds no finished run of {MODEL} on cifar100.")
  architecture = architectures.find(MODEL)
  trained = weights.load(run / "model.npz", architecture, head="keep", num_classes=100)
  target = pathlib.Path(str(resources.files("bit_jax.weights"))) / "assets" / f"{NAME}.npz"
  weights.save(target, trained.params, kernel_dtype=np.float16)

  embedded = weights.load(target, architecture, head="keep", num_classes=100)
  view = evaluation.View(config["crop"])
  tests = evaluation.load("cifar100", view, argv[2] if len(argv) == 3 else None)
  measured = evaluation.evaluate(embedded.params, architecture, tests)
  names = tests.part.class_names
  card = _card(run, config, result, measured, names, tests.version, embedded.sha256)
  target.with_suffix(".md").write_text(card, encoding="utf-8")
  print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, top-1 {measured['top1']:.2%}")


def _card(
  run: pathlib.Path,
  config: dict[str, Any],
  result: dict[str, Any],
  measured: dict[str, float],
  classes: Sequence[str],
  version: str,
  sha256: str,
) -> str:
  environment: dict[str, Any] = run_folder.read_json(run / run_folder.ENVIRONMENT) or {}
  packages = environment["packages"]
  return _TEMPLATE.read_text(encoding="utf-8").format(
    name=NAME,
    model=MODEL,
    parameters=architectures.num_parameters(architectures.find(MODEL), len(classes)),
    folder=f"runs/{config['name']}",
    top1=measured["top1"],
    top5=measured["top5"],
    trained_top1=result["top1"],
    trained_top5=result["top5"],
    steps=config["total_steps"],
    batch=config["batch_size"],
    epochs=config["total_steps"] * config["batch_size"] / 50_000,
    resize=config["resize"],
    crop=config["crop"],
    seed=config["seed"],
    minutes=result["seconds"] / 60,
    machine=f"{environment['machine']} ({environment['platform']})",
    versions=", ".join(f"{n} {packages[n]}" for n in ("jax", "flax", "optax")),
    commit=(environment["commit"] or "unknown")[:12],
    version=version,
    sha256=sha256,
    classes=", ".join(classes),
  )


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
