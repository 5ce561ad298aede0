"""Cost of runs: operations, device memory and time of each network and regime.

    python -m experiments.cost            # updates and prints cost.md
    python -m experiments.cost --short    # prints one summary table

Times come from measured benchmarks or from a card's data sheet (`throughput`).
"""

import argparse
import itertools
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bit_jax import hyperrule
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import exits
from bit_jax.training import memory
from experiments.benchmarks import results, roofline
from experiments.cost import throughput

_TABLE = pathlib.Path(__file__).parents[1] / "cost.md"
_NETWORKS = ("R14x0.5", "R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
_SIZES = (128, 384, 480)  # the rule's crops, sides in pixels
_CASES = list(itertools.product(_NETWORKS, _SIZES))
_SUMMARY_SIZES = (128, 480)
_BATCHES = (8, 32, 128, 512)
_REGIMES = {regime.name: regime.total_steps for regime in hyperrule.REGIMES}
_CLASSES = 1000  # they matter little, except for the smallest network's memory
_PREFIXES = ("", "K", "M", "G", "T", "P", "E")


def main(argv: Sequence[str]) -> None:
  """Updates and prints `cost.md`, or prints the summary."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="Updates and prints cost.md, the cost of runs."
  )
  parser.add_argument("--short", action="store_true", help="print one summary table instead")
  options = parser.parse_args(argv[1:])
  known = throughput.measurements()
  if options.short:
    print("\n".join(summary(known)))
    return
  text = _TABLE.read_text(encoding="utf-8")
  for name, lines in document(known).items():
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(start)
    text = "".join((before, start, "\n", "\n".join(lines), "\n\n", end, rest.partition(end)[2]))
  _TABLE.write_text(text, encoding="utf-8")
  print(text, end="")


def document(known: Sequence[throughput.Measured]) -> dict[str, Iterable[str]]:
  """Returns the lines of each table of `cost.md`.

  Args:
    known: The measurements.
  """
  dtypes = ("float32", "bfloat16")
  devices = dict.fromkeys([throughput.CPU, *throughput.CARDS, *sorted({m.device for m in known})])
  times = [_case(*case) | {d: _times(known, d, *case) for d in devices} for case in _CASES]
  return {
    "operations": _markdown([_operations(*case) for case in _CASES]),
    "memory": _markdown([_memory(*case, dtype) for case in _CASES for dtype in dtypes]),
    "time": _markdown(times),
    "cards": [
      f"- {card}: {a.flops / 1e12:g} TFLOP/s, {a.bandwidth / 1e12:g} TB/s ({a.source})"
      for card in devices
      if (a := roofline.ACCELERATORS.get(card))
    ],
  }


def summary(known: Sequence[throughput.Measured]) -> Iterator[str]:
  """Yields the lines of one summary table.

  Args:
    known: The measurements.
  """
  regimes = " / ".join(_REGIMES)
  rows = []
  for case in itertools.product(_NETWORKS, _SUMMARY_SIZES):
    operations, memories = _operations(*case), _memory(*case, "bfloat16")
    row = {
      **_case(*case),
      f"training: {regimes}": " / ".join(operations[regime] for regime in _REGIMES),
      **{f"GB for {n} images at once": memories[f"{n} at once"] for n in (32, 512)},
      f"{throughput.CPU}: small": _times(known, throughput.CPU, *case).partition(" / ")[0],
      f"H200: {regimes}": _times(known, "H200", *case),
    }
    rows.append(row)
  return _markdown(rows)


def _case(name: str, size: int) -> dict[str, str]:
  return {"network": name, "pixels": str(size)}


def _operations(name: str, size: int) -> dict[str, str]:
  """Returns the case and its operations by column."""
  forward = architectures.forward_flops(architectures.find(name), _CLASSES, size)
  step = architectures.TRAINING_FACTOR * forward * hyperrule.RULE_BATCH_SIZE
  totals = {regime: _flop(step * steps) for regime, steps in _REGIMES.items()}
  return {**_case(name, size), "forward, per image": _flop(forward), **totals}


def _flop(number: float) -> str:
  """Returns e.g. '2.67 GFLOP' or '4.1 PFLOP'."""
  power = min(6, int(math.log10(number) // 3))
  return f"{number / 1000**power:.3g} {_PREFIXES[power]}FLOP"


def _memory(name: str, size: int, dtype: str) -> dict[str, str]:
  """Returns the case and its gigabytes by column."""
  resize = hyperrule.resize_for(size)
  model = resnet_v2.create(name, _CLASSES, dtype, "gpu")
  task = memory.Task(model, resize, size, (resize, resize))
  state, need = task.state_bytes, memory.bound(task)
  return {
    **_case(name, size),
    "dtype": dtype,
    "weights, momentum": f"{state / 1e9:.3g}",
    **{f"{n} at once": results.number((state + need.of(n)) / 1e9) for n in _BATCHES},
  }


def _times(known: Sequence[throughput.Measured], device: str, name: str, size: int) -> str:
  """Returns the time of each regime, marked by its source; '' without a prediction."""
  batch = hyperrule.RULE_BATCH_SIZE
  prediction = throughput.predict(known, device, name, size, batch)
  if prediction is None:
    return ""
  times = " / ".join(_duration(n * batch / prediction.rate) for n in _REGIMES.values())
  return f"{prediction.basis} {times}"


def _duration(seconds: float) -> str:
  """Returns e.g. '40 s', '12 min', '3.5 h' or '26 d'."""
  for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
    if (number := seconds / length) < most:
      return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
  return f"{seconds / 86400:,.0f} d"


def _markdown(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
  """Yields the lines of a Markdown table; rows are {title: cell}, all with the same titles."""
  yield f"| {' | '.join(rows[0])} |"
  yield "|---" * len(rows[0]) + "|"
  for row in rows:
    yield f"| {' | '.join(row.values())} |"


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
