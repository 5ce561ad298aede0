"""A probe from end to end: features, few-shot subsets, regressions, learning curve."""

import dataclasses
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tqdm

from bit_jax.data import datasets, fewshot
from bit_jax.inference import networks
from bit_jax.probe import curve, features, report, ridge
from bit_jax.runtime import errors, phrases
from bit_jax.weights import catalogue

SHOTS = (1, 5, 10, 25)  # of big_vision's few-shot evaluator
SEEDS, SEEDS_OF_CURVE, LEAST_SEEDS = 5, 20, 5


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a network is probed.

  Attributes:
    data: As in `features.open_set`.
    data_dir: Where tfds keeps prepared sets; None for its default.
    shots: Examples per class; None: `SHOTS`, or those of `curve.sizes`.
    num_seeds: Random subsets of each size; None: `SEEDS` or `SEEDS_OF_CURVE`.
    curve: Whether a learning curve is fitted.
    cropped: As in `features.compute`.
    batch_size: Images at once over all devices.
  """

  data: str
  data_dir: str | None = None
  shots: tuple[int, ...] | None = None
  num_seeds: int | None = None
  curve: bool = False
  cropped: bool = False
  batch_size: int = 64


def run(network: networks.Network, settings: Settings) -> report.Probe:
  """Probes a network; prints remarks and progress on standard error.

  Raises:
    UserError: The data can't be used, or have too few images.
  """
  remarks: list[str] = []

  def say(text: str) -> None:
    remarks.append(text)
    print(text, file=sys.stderr, flush=True)

  seeds = range(settings.num_seeds or (SEEDS_OF_CURVE if settings.curve else SEEDS))
  if settings.curve and len(seeds) < LEAST_SEEDS:
    raise errors.UserError(
      f"A curve's interval needs at least {LEAST_SEEDS} seeds, not {len(seeds)}: raise --seeds."
    )
  data = features.open_set(settings.data, settings.data_dir)
  for sentence in (data.origin, *data.warnings):
    if sentence is not None:
      say(sentence)
  if features.has_trained_on(network, data, settings.data):
    _report_reuse(network, settings, say)
  shots = settings.shots or (None if settings.curve else SHOTS)
  found = features.compute(
    network,
    data,
    shots=shots,
    seeds=seeds,
    cropped=settings.cropped,
    batch_size=settings.batch_size,
    check=lambda available, names: _possible(available, names, settings),
  )
  for text in found.warnings:
    say(f"warning: {text}")
  for reason in found.unreadable:
    print(reason, file=sys.stderr)
  used = _sizes(found, settings, say)
  measured = measure(found, used, seeds)
  how = f"resized to {features.RESIZE} and cropped to" if settings.cropped else "of"
  return report.Probe(
    network=network.name,
    sha256=network.sha256,
    num_features=found.test.shape[1],
    images=f"images {how} {network.size} pixels",
    data=found.version,
    title=found.version.split(",")[0] if data.spec.name in datasets.OWN else data.spec.name,
    num_classes=len(found.class_names),
    num_train=len(found.train_labels),
    seeds=seeds,
    measured=measured,
    forecast=curve.forecast(measured) if settings.curve else None,
    remarks=remarks,
    unreadable=found.unreadable,
  )


def measure(
  found: features.Features, sizes: Sequence[int], seeds: Sequence[int]
) -> curve.Measurements:
  """Fits and evaluates a regression for each seed and size, with a progress bar.

  Subsets are those of few-shot training with the same seed; a seed's smaller ones are part of its
  larger ones.

  Args:
    found: The features.
    sizes: Examples per class, ascending; every class has so many.
    seeds: Of the subsets.
  """
  names, labels = found.class_names, found.train_labels
  wrong = np.zeros((len(seeds), len(sizes), len(found.test)), bool)
  total = len(seeds) * len(sizes)
  with tqdm.tqdm(desc="Fitting", total=total, unit=" regressions", disable=None) as bar:
    for k, size in enumerate(sizes):
      is_all = bool((found.available == size).all())  # one subset, whatever the seed
      for s, seed in enumerate(seeds):
        if is_all and s:
          wrong[s, k] = wrong[0, k]
        else:
          subset = fewshot.select(labels, size, seed, names)
          fitted = ridge.fit(found.train[found.rows[subset]], labels[subset], len(names))
          wrong[s, k] = fitted.predict(found.test) != found.test_labels
        bar.update()
  share = np.divide.outer(np.asarray(sizes), found.available).mean(axis=1)
  return curve.Measurements(np.asarray(sizes), wrong, share)


def _report_reuse(
  network: networks.Network, settings: Settings, say: Callable[[str], object]
) -> None:
  """Says that a network was trained on the data that it is probed with.

  Raises:
    UserError: A curve is wanted, which would be false.
  """
  fact = f"{network.name} was trained on {settings.data}: its features depend on all its labels"
  if settings.curve:
    start = f"BiT-M-{network.model.architecture.name}"
    start = start if start in catalogue.CATALOGUE else "BiT-M-R50x1"
    raise errors.UserError(
      f"{fact}, so errors with fewer labels would be false. Probe a checkpoint that hasn't seen "
      f"them: python -m bit_jax.probe {start} {settings.data} --curve."
    )
  say(f"warning: {fact}, so the accuracies are not those of so few labels.")


def _sizes(found: features.Features, settings: Settings, say: Callable[[str], object]) -> list[int]:
  """Returns the examples per class of the subsets, and says which are left out.

  Raises:
    UserError: As for `_possible`.
  """
  available = found.available
  possible, too_large, smallest = _possible(available, found.class_names, settings)
  if too_large:
    numbers = " and ".join(", ".join(map(str, too_large)).rsplit(", ", 1))
    say(f"{numbers} per class left out: {smallest}.")
  if settings.curve and not settings.shots and available.max() > available.min():
    say(
      f"The curve ends at {available.min()} per class, since {smallest}; others have up to "
      f"{available.max():,}."
    )
  return possible


def _possible(
  available: np.ndarray, names: Sequence[str], settings: Settings
) -> tuple[list[int], list[int], str]:
  """Returns the wanted examples per class that all classes have, the others, and why.

  Args:
    available: [C] integer: training images of each class.
    names: [C] the names of the classes.
    settings: What is wanted.

  Raises:
    UserError: The user chose one that is too large, or too few are left.
  """
  least = int(available.argmin())
  count = int(available[least])
  smallest = f"the smallest class, {names[least]}, has {phrases.counted(count, 'training image')}"
  sizes = list(settings.shots or (curve.sizes(count) if settings.curve else SHOTS))
  too_large = [size for size in sizes if size > count]
  if too_large and settings.shots:
    raise errors.UserError(
      f"{_capital(smallest)}; --shots={max(too_large)} needs as many of each class. Lower --shots "
      f"to at most {count}, or add images."
      if count
      else f"{_capital(smallest)}: add images of it, or remove the class."
    )
  possible = [size for size in sizes if size <= count]
  needed = curve.LEAST if settings.curve else 1
  if len(possible) < needed:
    sort = f"A curve needs {needed} sizes of subsets" if settings.curve else "A subset needs 1"
    raise errors.UserError(f"{sort}, and {smallest}: add images, or remove the class.")
  return possible, too_large, smallest


def _capital(text: str) -> str:
  return text[0].upper() + text[1:]
