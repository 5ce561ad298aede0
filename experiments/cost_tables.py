"""The tables of `cost.md`: operations, device memory and time of each network and regime."""

import math
from collections.abc import Iterable, Iterator, Sequence

import jax.numpy as jnp

from bit_jax import hyperrule
from bit_jax.models import architectures, resnet_v2
from bit_jax.training import memory
from experiments import throughput
from experiments.benchmarks import results, roofline

_NETWORKS = ("R14x0.5", "R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
_RESIZE = {  # of the rule: side of the crop, and of the image that it is of, in pixels
  crop: resize
  for image, source in (((32, 32), "code"), ((512, 512), "paper"), ((512, 512), "code"))
  for resize, crop in [hyperrule.resolution(image, "R50x1", source)]
}
_IN_SHORT = (128, 480)
_DTYPES = ("float32", "bfloat16")
_BATCHES = (8, 32, 128, 512)
_REGIMES = ("small", "medium", "large")
_CLASSES = 1000  # which matter little but to the smallest network's memory
_ABOUT_OPERATIONS = (
  "Of convolutions and head, a multiplication and its addition being two; training takes "
  f"{architectures.TRAINING_FACTOR} times the forward pass."
)
_ABOUT_MEMORY = (
  "GB (1e9 bytes) on a GPU or TPU, by the arithmetic of `bit_jax.memory`, an upper bound: weights "
  "and momentum, and with so many images at once on a device all in all, beside some 1 GB for the "
  "program. A batch is cut into micro-batches that fit."
)
_PREFIXES = ("", "K", "M", "G", "T", "P", "E")


def document(known: Sequence[throughput.Measured], checked: Iterable[str]) -> Iterator[str]:
  """Yields the lines of `cost.md`.

  Args:
    known: What was measured.
    checked: Lines of the section on predictions (`cost_check_tables.section`).
  """
  lengths = ", ".join(
    f"{name} {r.total_steps:,}" for name, r in zip(_REGIMES, hyperrule.REGIMES, strict=True)
  )
  yield "# What runs cost"
  yield ""
  yield (
    f"By `python -m experiments.cost`. Steps of {hyperrule.RULE_BATCH_SIZE} images, by the rule: "
    f"{lengths}. Evaluations come on top."
  )
  yield from _section("Operations of training", _ABOUT_OPERATIONS, _flops_table())
  yield from _section("Device memory", _ABOUT_MEMORY, _memory_table())
  yield from _section("Time of training", _about_time(known), _time_table(known))
  yield ""
  yield from _data_sheets(known)
  yield from ("", *checked)


def summary(known: Sequence[throughput.Measured]) -> Iterator[str]:
  """Yields the lines of one table of all that, in short: the README's.

  Args:
    known: What was measured.
  """
  batch = hyperrule.RULE_BATCH_SIZE
  regimes = " / ".join(_REGIMES)
  at_once = (_BATCHES[1], _BATCHES[-1])
  titles = (
    *("network", "pixels", f"training: {regimes}"),
    *(f"GB for {n} images at once" for n in at_once),
    *(f"{throughput.CPU}: small", f"H200: {regimes}"),
  )
  rows = []
  for name, size in _cases():
    if size not in _IN_SHORT:
      continue
    forward = architectures.forward_flops(architectures.find(name), _CLASSES, size)
    images = [r.total_steps * batch for r in hyperrule.REGIMES]
    totals = (_operations(architectures.TRAINING_FACTOR * forward * n) for n in images)
    row = (
      *(name, str(size), " / ".join(totals)),
      *(_gigabytes(name, size, "bfloat16", [n])[0] for n in at_once),
      _times(throughput.on_cpu(known, name, size), 1),
      _times(throughput.on_card(known, "H200", name, size, batch)),
    )
    rows.append(row)
  return markdown(titles, rows)


def _flops_table() -> Iterator[str]:
  titles = ["network", "pixels", "forward, an image", *_REGIMES]
  rows = []
  for name, size in _cases():
    forward = architectures.forward_flops(architectures.find(name), _CLASSES, size)
    images = (r.total_steps * hyperrule.RULE_BATCH_SIZE for r in hyperrule.REGIMES)
    totals = [_operations(architectures.TRAINING_FACTOR * forward * n) for n in images]
    rows.append((name, str(size), _operations(forward), *totals))
  return markdown(titles, rows)


def _memory_table() -> Iterator[str]:
  titles = ["network", "pixels", "dtype", "weights, momentum", *(f"{n} at once" for n in _BATCHES)]
  rows = []
  for name, size in _cases():
    for dtype in _DTYPES:
      state = f"{_task(name, size, dtype).state_bytes / 1e9:.3g}"
      rows.append((name, str(size), dtype, state, *_gigabytes(name, size, dtype, _BATCHES)))
  return markdown(titles, rows)


def _gigabytes(name: str, size: int, dtype: str, images: Sequence[int]) -> list[str]:
  """Returns what a step with so many images at once takes in all."""
  task = _task(name, size, dtype)
  need = memory.bound(task)
  return [results.number((task.state_bytes + need.of(n)) / 1e9) for n in images]


def _task(name: str, size: int, dtype: str) -> memory.Task:
  resize = _RESIZE[size]
  model = resnet_v2.create(name, _CLASSES, jnp.dtype(dtype))
  return memory.Task(model, resize, size, (resize, resize), platform="gpu")


def _time_table(known: Sequence[throughput.Measured]) -> Iterator[str]:
  batch = hyperrule.RULE_BATCH_SIZE
  cards = _cards(known)
  rows = []
  for name, size in _cases():
    cells = [_times(throughput.on_cpu(known, name, size))]
    cells += [_times(throughput.on_card(known, card, name, size, batch)) for card in cards]
    rows.append((name, str(size), *cells))
  return markdown(["network", "pixels", throughput.CPU, *cards], rows)


def _cards(known: Sequence[throughput.Measured]) -> list[str]:
  """Returns the cards that there are columns for."""
  return list(dict.fromkeys([*throughput.CARDS, *throughput.measured_cards(known)]))


def _data_sheets(known: Sequence[throughput.Measured]) -> Iterator[str]:
  for card in _cards(known):
    a = roofline.ACCELERATORS.get(card)
    if a is not None:
      yield f"- {card}: {a.flops / 1e12:g} TFLOP/s, {a.bandwidth / 1e12:g} TB/s ({a.source})"


def _about_time(known: Sequence[throughput.Measured]) -> str:
  cards = throughput.measured_cards(known)
  if cards:
    where = (
      f"On cards, in bfloat16, likewise where something was measured ({', '.join(cards)}); else "
      "`>=` is the least time that the data sheet allows (`experiments/benchmarks/roofline.py`), "
      "and a run takes longer."
    )
  else:
    where = (
      "On cards nothing was measured: `>=` is the least time that their data sheets allow "
      "(bfloat16, `experiments/benchmarks/roofline.py`), and a run takes longer."
    )
  return (
    f"Small / medium / large regime. On {throughput.CPU} in float32: `m` from images a second as "
    "measured, in smaller batches; `~` an estimate, at the FLOP/s that the most similar case "
    f"reached. {where}"
  )


def _times(prediction: throughput.Prediction | None, regimes: int = len(_REGIMES)) -> str:
  """Returns the time of each regime, or of the first few, marked by where it comes from."""
  if prediction is None:
    return ""
  mark = "m" if prediction.measured else ">=" if prediction.bound else "~"
  images = (r.total_steps * hyperrule.RULE_BATCH_SIZE for r in hyperrule.REGIMES[:regimes])
  return f"{mark} {' / '.join(duration(n / prediction.rate) for n in images)}"


def _cases() -> list[tuple[str, int]]:
  return [(name, size) for name in _NETWORKS for size in _RESIZE]


def _operations(number: float) -> str:
  """Returns e.g. '2.67 GFLOP' or '4.1 PFLOP'."""
  power = min(6, int(math.log10(number) // 3))
  return f"{number / 1000**power:.3g} {_PREFIXES[power]}FLOP"


def duration(seconds: float) -> str:
  """Returns e.g. '40 s', '12 min', '3.5 h' or '26 d'."""
  for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
    number = seconds / length
    if number < most:
      return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
  return f"{seconds / 86400:,.0f} d"


def _section(title: str, text: str, table: Iterable[str]) -> Iterator[str]:
  yield from ("", f"## {title}", "", text, "")
  yield from table


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
  """Yields the lines of a Markdown table."""
  yield f"| {' | '.join(titles)} |"
  yield "|---" * len(titles) + "|"
  for row in rows:
    yield f"| {' | '.join(row)} |"
