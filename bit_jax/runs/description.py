"""What a run is made of: its data, its weights, the machine; recorded and told before it begins."""

import pathlib
from collections.abc import Iterator
from typing import Any

from bit_jax import run_config, weights
from bit_jax.data import datasets, loading, opening, order
from bit_jax.runs import per_class, run_folder

_EMBEDDED_MODEL = "R14x0.5"
_EMBEDDED_SETS = ("cifar100", "vtab/cifar100")


def record(
  folder: pathlib.Path, config: Any, data: loading.Loaded, digest: str | None, dtype: str
) -> None:
  """Writes what a run is made of into its folder, and prints it.

  Args:
    folder: The run folder.
    config: Resolved.
    data: What is trained on, and what is scored.
    digest: SHA-256 of the checkpoint, or None if there is none.
    dtype: What convolutions compute in.
  """
  c, names = config, data.train.class_names
  environment = run_folder.describe_environment(
    data=data.version,
    weights=c.weights,
    weights_sha256=digest,
    dtype=dtype,
    order=order.VERSION,
    chosen_on=data.chosen_on,
  )
  # First: it may refuse, and the folder stays as it was.
  data.warnings.extend(run_folder.record_environment(folder, environment))
  run_folder.write_lines(folder / "classes.txt", names)
  if data.chosen is not None:
    chosen = {"shots": c.shots, "seed": c.seed, "of": "the training split, in its order"}
    chosen["indices"] = data.chosen
    if data.listing is not None:
      chosen["paths"] = [data.listing[i][0] for i in data.chosen]
    run_folder.write_json(folder / "fewshot.json", chosen)
  if data.listing is not None:
    run_folder.write_csv(folder / "split.csv", [("path", "class", "split"), *data.listing])
  print(
    f"Training on {len(data.train):,} images of {len(names):,} classes ({_shown(c, data)}), "
    f"evaluating {len(data.test):,}; {environment['num_devices']} x {environment['device']}, "
    f"{environment['dtype']}; run folder {folder}"
  )
  for line in _remarks(data):
    print(line)
  for text in relations(c):
    print(f"warning: {text}")


def expected(config: Any, spec: datasets.DatasetSpec) -> Iterator[str]:
  """Yields what the user should know of the data before a run: what is known without reading it.

  Args:
    config: Resolved.
    spec: The data set.

  Raises:
    UserError: The user's own images are gone or faulty.
  """
  warnings, origin = opening.reading(spec)
  more = (*run_config.choice_warnings(config, spec), *relations(config))
  yield from (f"warning: {text}" for text in (*warnings, *more))
  if origin:
    yield origin


def _shown(config: Any, data: loading.Loaded) -> str:
  """Returns the data's version as it is printed: with the CSV's name where a CSV was read."""
  name = pathlib.Path(config.data_path or "").name
  if config.dataset != "folder" or not name.lower().endswith((".csv", ".tsv")):
    return data.version
  return f"{name}, {data.version.rpartition(', ')[2]}"


def relations(config: Any) -> Iterator[str]:
  """Yields a sentence where the network of a resolved config has seen the data before."""
  embedded = weights.default_for(_EMBEDDED_MODEL)
  if config.weights == embedded and config.dataset in _EMBEDDED_SETS:
    yield f"{embedded} was pre-trained on these very images and labels."


def _remarks(data: loading.Loaded) -> Iterator[str]:
  """Yields what the user should know of the data."""
  yield from (f"warning: {text}" for text in data.warnings)
  yield from (f"warning: {n:,} {why} are left out." for why, n in data.left_out.items())
  if data.origin:
    yield data.origin
  if data.validation is not None:
    yield (
      f"Choosing on val ({len(data.validation):,} images); the result is the test set's "
      f"({len(data.test):,} images)."
    )
  yield from data.caches
  if data.train.labels is not None:
    yield per_class.balance(data.train.labels, data.train.class_names)
  parts = (("training", data.train), ("validation", data.validation), ("test", data.test))
  streamed = [name for name, part in parts if part is not None and part.examples is None]
  if streamed:
    yield (
      f"The {' and '.join(streamed)} images are read as they are needed: decoded they would take "
      f"more than the share of memory that sets may have (resident_share)."
    )
