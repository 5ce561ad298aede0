"""What runs cost: operations, device memory and time.

    python -m experiments.cost                      # the tables, also into cost.md beside this file
    python -m experiments.cost --check RUN_FOLDER ...   # predicted against measured images/s

Times rest on what the benchmarks measured, or on a card's data sheet (`throughput`).
"""

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence

from bit_jax import architectures, commands, errors, runs
from experiments import cost_tables, throughput
from experiments.benchmarks import results

_TABLE = pathlib.Path(__file__).with_suffix(".md")


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
