"""The results of a probe: a table, JSON, CSV, and the learning curve as a sentence and a figure."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_jax.probe import curve, ridge
from bit_jax.runs import interval
from bit_jax.runtime import phrases, plots

METRIC = (
  "Ridge regression on frozen features: another metric than fine-tuning; don't compare the two."
)
_WIDE = 8  # ratio of mean errors above which their axis is logarithmic
_FEW = 2000  # test images, up to which the precision of an error is stated


@dataclasses.dataclass(frozen=True)
class Probe:
  """A probe of one network on one data set.

  Attributes:
    network: The network's name, as given.
    sha256: Of its weights.
    num_features: Number of features.
    images: How images were prepared.
    data: What identifies the data.
    title: The data set's name.
    num_classes: Number of classes.
    num_train: Training images that subsets were drawn from.
    seeds: Of the subsets.
    measured: The errors.
    forecast: The learning curve, if one was fitted.
    remarks: Sentences for the user.
    unreadable: Why images can't be read, each with its name.
  """

  network: str
  sha256: str
  num_features: int
  images: str
  data: str
  title: str
  num_classes: int
  num_train: int
  seeds: Sequence[int]
  measured: curve.Measurements
  forecast: curve.Forecast | None
  remarks: Sequence[str] = ()
  unreadable: Sequence[str] = ()

  @property
  def num_test(self) -> int:
    """Returns the number of test images."""
    return int(self.measured.wrong.shape[2])

  @property
  def accuracies(self) -> np.ndarray:
    """Returns the accuracy of each seed and number of shots, [S, K]."""
    return 1 - self.measured.errors


def as_text(probe: Probe) -> str:
  """Returns the table with what it was measured on, and what the curve says."""
  is_curve = probe.forecast is not None
  values = probe.measured.errors if is_curve else probe.accuracies
  row = "{:>9}  {:>9}  {:>8}  {:>8}  {:>8}".format
  header = row("per class", "images", "median", "lowest", "highest")
  subsets = phrases.counted(len(probe.seeds), "random subset")
  lines = [
    METRIC,
    f"  network  {probe.network}, {probe.num_features:,} features, {probe.images}",
    f"  data     {probe.data}: {probe.num_train:,} training and {probe.num_test:,} test images, "
    f"{probe.num_classes:,} classes",
    f"  shown    {'error' if is_curve else 'accuracy'} of {subsets} of each size, class-balanced "
    f"(seeds {_range(probe.seeds)})",
    "",
    header + ("     curve" if is_curve else ""),
  ]
  for k, count in enumerate(probe.measured.sizes.tolist()):
    of_size = values[:, k]
    shown = [f"{v:.1%}" for v in (np.median(of_size), of_size.min(), of_size.max())]
    fitted = ""
    if probe.forecast is not None and k >= probe.forecast.first:
      fitted = f"  {probe.forecast.error(count):>8.1%}"
    lines.append(row(f"{count:,}", f"{count * probe.num_classes:,}", *shown) + fitted)
  if probe.forecast is not None:
    law, first = probe.forecast.law, probe.measured.sizes[probe.forecast.first]
    lines += [
      "",
      f"curve: error = {law.a:.3f} n^-{law.b:.2f} + {law.c:.3f} with n images per class, fitted "
      f"from n = {first} on",
      *sentences(probe),
    ]
  return "\n".join(lines)


def sentences(probe: Probe) -> list[str]:
  """Returns what twice the images would bring, if it can be forecast, and the error's interval."""
  found = probe.forecast
  assert found is not None
  twice = 2 * found.last
  low, high = found.interval(twice)
  if found.shows_gain:
    said = [
      f"With twice the photographs per class ({twice:,}), the error would fall from "
      f"{found.now:.1%} to about {found.error(twice):.1%} (95% interval {low:.1%} to {high:.1%})."
    ]
  else:
    least, most = (f"{max(0.0, found.now - v) * 100:.1f}" for v in (high, low))
    said = [
      f"The data don't allow a forecast: twice the photographs per class ({twice:,}) would lower "
      f"the error of {found.now:.1%} by {least} to {most} points (95% interval), which includes no "
      f"gain."
    ]
  if probe.num_test < _FEW:
    wrong = round(found.now * probe.num_test)
    low, high = interval.wilson(wrong / probe.num_test, probe.num_test)
    said.append(
      f"All errors are those on the {probe.num_test:,} test images; on other images of the kind, "
      f"an error of {found.now:.1%} may be {low:.1%} to {high:.1%} (95% interval)."
    )
  return said


def as_json(probe: Probe) -> str:
  """Returns everything as a JSON object."""
  accuracies = probe.accuracies
  rows = [
    {
      "shots": count,
      "accuracy": accuracies[:, k].tolist(),
      "median": float(np.median(accuracies[:, k])),
      "lowest": float(accuracies[:, k].min()),
      "highest": float(accuracies[:, k].max()),
    }
    for k, count in enumerate(probe.measured.sizes.tolist())
  ]
  content: dict[str, Any] = {
    "metric": "ridge regression on frozen features, not fine-tuning",
    "l2": ridge.L2,
    "bias": ridge.BIAS,
    "network": probe.network,
    "weights_sha256": probe.sha256,
    "num_features": probe.num_features,
    "images": probe.images,
    "data": probe.data,
    "num_classes": probe.num_classes,
    "num_train": probe.num_train,
    "num_test": probe.num_test,
    "seeds": list(probe.seeds),
    "results": rows,
    "remarks": list(probe.remarks),
    "unreadable": list(probe.unreadable),
  }
  if probe.forecast is not None:
    content["curve"] = _curve(probe, probe.forecast)
  return json.dumps(content, indent=2)


def _curve(probe: Probe, found: curve.Forecast) -> dict[str, Any]:
  twice = 2 * found.last
  return {
    **dataclasses.asdict(found.law),
    "fitted_from": int(probe.measured.sizes[found.first]),
    "error_now": found.now,
    "twice": twice,
    "error_with_twice": found.error(twice),
    "interval": list(found.interval(twice)),
    "shows_gain": found.shows_gain,
    "sentences": sentences(probe),
  }


def as_csv(probe: Probe) -> str:
  """Returns a row for each number of shots, with the accuracy of every seed."""
  accuracies, out = probe.accuracies, io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  of_seeds = [f"seed_{seed}" for seed in probe.seeds]
  writer.writerow(["shots", "images", "median", "lowest", "highest", *of_seeds])
  for k, count in enumerate(probe.measured.sizes.tolist()):
    values = accuracies[:, k]
    summary = [np.median(values), values.min(), values.max()]
    shown = [f"{v:.6f}" for v in (*summary, *values)]
    writer.writerow([count, count * probe.num_classes, *shown])
  return out.getvalue().rstrip("\n")


def draw(probe: Probe, picture: pathlib.Path) -> None:
  """Draws errors against examples per class, the curve, and its forecast with the interval.

  Raises:
    ImportError: matplotlib can't be imported.
  """
  found, measured = probe.forecast, probe.measured
  assert found is not None
  sizes, last, twice = measured.sizes, found.last, 2 * found.last
  means = measured.errors.mean(axis=0)
  with plots.figure(picture, (7.5, 5.5), dpi=150) as figure:
    axes = figure.subplots()
    plots.set_log_scale(axes, "x", (1, 2, 5))
    if means.min() > 0 and means.max() > _WIDE * means.min():
      plots.set_log_scale(axes, "y", (1, 2, 5))
    else:
      axes.set_ylim(0, 105 * measured.errors.max() + 1)
    every = axes.scatter(
      np.repeat(sizes, len(measured.errors)),
      measured.errors.T.ravel() * 100,
      s=12,
      color="0.6",
      alpha=0.5,
      linewidth=0,
    )
    (mean,) = axes.plot(sizes, means * 100, "o", color=plots.BLUE, zorder=3)
    fitted, beyond = np.geomspace(sizes[found.first], last), np.geomspace(last, twice)
    (curved,) = axes.plot(fitted, found.law.at(fitted) * 100, color=plots.BLUE)
    low, high = np.transpose([found.interval(n) for n in beyond]) * 100
    band = axes.fill_between(beyond, low, high, color=plots.ORANGE, alpha=0.25, linewidth=0)
    handles, names = [every, mean, curved], ["one random subset", "mean", "fitted curve"]
    if found.shows_gain:
      handles += axes.plot(beyond, found.law.at(beyond) * 100, "--", color=plots.ORANGE)
      names.append("forecast")
      axes.plot(twice, found.error(twice) * 100, "o", color=plots.ORANGE, zorder=3)
    axes.set(xlabel="images per class", ylabel="error on the test images (%)")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    plots.legend(axes, [*handles, band], [*names, "95% interval"], frameon=False)
    title = f"{probe.title}: linear models on features of {probe.network}"
    plots.set_title(figure, f"{title}\n{sentences(probe)[0]}")


def _range(seeds: Sequence[int]) -> str:
  return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
