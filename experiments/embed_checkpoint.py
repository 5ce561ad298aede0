"""Stores a finished run's weights in the package as its embedded checkpoint, with a model card.

    python -m experiments.embed_checkpoint RUN_FOLDER [DATA_DIR]

Kernels are converted to float16, which halves the file and, as they are standardised on use,
changes little. The card states the accuracy of the converted file on the CIFAR-100 test set.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from importlib import resources

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
    UserError: The folder has no finished run of the model on CIFAR-100.
  """
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("run", type=pathlib.Path, metavar="RUN_FOLDER", help="of a finished run")
  parser.add_argument("data_dir", nargs="?", metavar="DATA_DIR", help="where tfds keeps its sets")
  options = parser.parse_args(argv[1:])
  run = options.run
  names = (run_folder.CONFIG, run_folder.RESULT, run_folder.ENVIRONMENT)
  config, result, environment = (run_folder.read_json(run / name) or {} for name in names)
  if not result or (config["model"], config["dataset"]) != (MODEL, "cifar100"):
    raise errors.UserError(f"{run} has no finished run of {MODEL} on cifar100.")
  architecture = architectures.find(MODEL)
  trained = weights.load(run / "model.npz", architecture, head="keep", num_classes=100)
  target = pathlib.Path(str(resources.files("bit_jax.weights"))) / "assets" / f"{NAME}.npz"
  weights.save(target, trained.params, kernel_dtype=np.float16)

  embedded = weights.load(target, architecture, head="keep", num_classes=100)
  view = evaluation.View(config["crop"])
  tests = evaluation.load("cifar100", view, options.data_dir)
  measured = evaluation.evaluate(embedded.params, architecture, tests)
  card = _TEMPLATE.read_text(encoding="utf-8").format(
    name=NAME,
    config=config,
    result=result,
    environment=environment,
    measured=measured,
    parameters=architectures.num_parameters(architecture, 100),
    epochs=config["total_steps"] * config["batch_size"] / 50_000,
    minutes=result["seconds"] / 60,
    packages=environment["packages"],
    commit=(environment["commit"] or "unknown")[:12],
    tests=tests,
    embedded=embedded,
    classes=", ".join(tests.part.class_names),
  )
  target.with_suffix(".md").write_text(card, encoding="utf-8")
  print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, top-1 {measured['top1']:.2%}")


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
