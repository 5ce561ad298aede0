"""What runs cost: operations, device memory, time and disk.

    python -m experiments.cost                      # the tables, also into cost.md beside this file
    python -m experiments.cost --check RUN_FOLDER ...   # predicted against measured images/s

Operations are counted as everywhere in the project (`architectures.forward_flops`): those of
convolutions and head, a multiplication and its addition being two, a gradient twice its product.
What is computed again with `remat` doesn't count, as it doesn't in a model's FLOP utilisation.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from bit_jax import architectures, commands, errors, runs
from bit_jax.data import datasets
from experiments import cost_tables, throughput
from experiments.benchmarks import results

_FLOAT32 = 4  # bytes
# Pictures, logs and JSON of a run folder: those of two runs of CIFAR-10 came to 0.35 MB. Pictures
# have a fixed size, whatever the images.
_RECORDS = 4e5
_TABLE = pathlib.Path(__file__).with_suffix(".md")


def run_flops(config: Any, spec: datasets.DatasetSpec) -> float:
  """Returns the operations of a run: its steps, forward and backward, and its evaluations.

  Args:
    config: Resolved. A run that `patience` ends early takes fewer.
    spec: The data set.
  """
  architecture = architectures.find(config.model)

  def forward(size: int) -> int:
    return architectures.forward_flops(architecture, spec.num_classes, size)

  trained = config.total_steps * config.batch_size
  evaluations = -(-config.total_steps // config.eval_every)  # the last step's is always made
  tested = evaluations * spec.num_test
  training = architectures.TRAINING_FACTOR * trained * forward(config.crop)
  return float(training + tested * forward(config.test_size))


def run_bytes(config: Any, spec: datasets.DatasetSpec) -> float:
  """Returns the bytes of a finished run's folder: what it holds at most, within a tenth or so.

  One checkpoint of weights and velocity (`checkpoint.Checkpoints` keeps the newest; its compression
  saves little of trained weights), the exported weights, and pictures and logs. While a checkpoint
  is saved, the one before is there as well.

  Args:
    config: Resolved.
    spec: The data set.
  """
  architecture = architectures.find(config.model)
  count = architectures.num_parameters(architecture, spec.num_classes)
  velocity = jnp.dtype(config.momentum_dtype).itemsize
  return float(count * (2 * _FLOAT32 + velocity) + _RECORDS)


def main(argv: Sequence[str]) -> None:
  """Prints and writes the tables, or checks predictions.

  Raises:
    UserError: A folder holds no finished run.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="What runs cost, as Markdown tables."
  )
  parser.add_argument("--check", nargs="+", metavar="RUN_FOLDER", type=pathlib.Path, default=[])
  parser.add_argument("--short", action="store_true", help="print one table of all, the README's")
  options = parser.parse_args(argv[1:])
  known = throughput.measurements()
  if options.short:
    print("\n".join(cost_tables.summary(known)))
    return
  if options.check:
    rows = [check_run(known, folder) for folder in options.check]
    print("\n".join(cost_tables.checks([*rows, *check_benchmarks(known)])))
    return
  text = "\n".join(cost_tables.document(known, list(check_benchmarks(known))))
  _TABLE.write_text(text + "\n", encoding="utf-8")
  print(text)


def check_run(known: Sequence[throughput.Measured], folder: pathlib.Path) -> tuple[str, ...]:
  """Returns what was predicted and measured of a run, as cells of a table.

  Args:
    known: What predictions rest on.
    folder: The run folder.

  Raises:
    UserError: It holds no finished run.
  """
  config, environment, result = (
    runs.read_json(folder / name) for name in (runs.CONFIG, runs.ENVIRONMENT, runs.RESULT)
  )
  if not config or not environment or not result:
    raise errors.UserError(f"{folder} holds no finished run.")
  prediction = throughput.of_run(known, config, environment)
  architecture = architectures.find(config["model"]).name
  name = f"{folder.name}: {architecture} {config['crop']} px batch {config['batch_size']}"
  return _check_cells(name, prediction, result["images_per_second"])


def check_benchmarks(known: Sequence[throughput.Measured]) -> Iterator[tuple[str, ...]]:
  """Yields the same for each case measured, predicted from the other cases alone."""
  for case in sorted({(m.architecture, m.size) for m in known}):
    others = [m for m in known if (m.architecture, m.size) != case]
    prediction = throughput.on_cpu(others, *case)
    for m in known:
      if (m.architecture, m.size) == case:
        yield _check_cells(f"benchmark: {m.architecture} {m.size} px", prediction, m.rate)


def _check_cells(
  name: str, prediction: throughput.Prediction | None, rate: float | None
) -> tuple[str, ...]:
  shown = "none" if rate is None else results.number(rate)
  if prediction is None:
    return name, "none", shown, "", "nothing is known of such a device"
  ratio = "" if rate is None else f"{prediction.rate / rate:.2f}"
  return name, results.number(prediction.rate), shown, ratio, prediction.basis


if __name__ == "__main__":
  sys.exit(commands.run(main, sys.argv))
