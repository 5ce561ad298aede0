"""The record of a run before its first step: the rule, warnings, and the files on its data."""

import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bit_jax import hyperrule, run_config
from bit_jax.data import datasets, opening, order, pipeline
from bit_jax.run_config import RunConfig
from bit_jax.runs import per_class, run_folder
from bit_jax.runtime import devices, phrases
from bit_jax.weights import catalogue


def rule(config: RunConfig, spec: datasets.DatasetSpec, num_devices: int) -> str:
  """Returns the resolved rule as a few lines of text, as it is printed before training."""
  num_examples = run_config.num_examples(config, spec)
  boundaries = ", ".join(
    f"{step:,}" if times == 1 else f"{step:,} ({times} times)"
    for step, times in Counter(config.decay_steps).items()
  )
  decays = f"x {hyperrule.DECAY_FACTOR:g} after {boundaries}" if boundaries else "no decay"
  share = f"{config.batch_size / num_devices:g} on each of {phrases.counted(num_devices, 'device')}"
  epochs = config.total_steps * config.batch_size / num_examples
  warm_up = phrases.counted(config.warmup_steps, "step")
  augmentation = [n for n, on in (("crop", config.random_crop), ("flip", config.random_flip)) if on]
  rows = {
    "preset": f"{config.preset} (resolution: {config.resolution})",
    "examples": f"{num_examples:,}",
    "resize -> crop": f"{config.resize} -> {config.crop} pixels; test images at {config.test_size}",
    "augmentation": f"random {' and '.join(augmentation)}" if augmentation else "none",
    "batch": f"{config.batch_size} ({share})",
    "steps": f"{config.total_steps:,} ({_epochs(epochs)})",
    "learning rate": f"{config.base_lr:g}, warm-up {warm_up}, {decays}",
    "MixUp": f"alpha {config.mixup_alpha:g}" if config.mixup_alpha else "off",
  }
  if differing := hyperrule.departures(config.to_dict(), num_examples, spec.image_size):
    texts = [f"{name} {value} (the rule: {rule})" for name, (value, rule) in differing.items()]
    rows["overrides"] = ", ".join(texts)
    if config.reason:
      rows["reason"] = config.reason
    beyond = ", ".join(f"{s:,}" for s in config.decay_steps if s >= config.total_steps)
    if "decay_steps" in differing and beyond:
      rows["warning"] = (
        f"the run ends after {config.total_steps:,} steps, before the learning rate falls after "
        f"{beyond}: change decay_steps or total_steps unless this is intended"
      )
  return "\n".join(f"  {name:<16}{text}" for name, text in rows.items())


def _epochs(number: float) -> str:
  """Returns a number of epochs as text, without rounding a part of one to 0."""
  text = f"{number:,.1f}" if number >= 0.1 else f"{number:.1g}"
  return "1 epoch" if text == "1.0" else f"{text} epochs"


def expected(config: RunConfig, data: opening.Opened) -> Iterator[str]:
  """Yields what is known of the data before it is read: warnings, and how it was split."""
  more = (*choice_warnings(config, data.spec), *relations(config))
  yield from (f"warning: {text}" for text in (*data.warnings, *more))
  if data.origin:
    yield data.origin


def choice_warnings(config: RunConfig, spec: datasets.DatasetSpec) -> list[str]:
  """Returns a sentence if weights are chosen on the images whose accuracy is reported."""
  if not config.chooses or spec.num_val or spec.protocol != "final":
    return []
  apart = ", or give the data train, val and test parts" if spec.name in datasets.OWN else ""
  return [
    f"keep_best or patience chooses on the images that are reported, so their accuracy can be too "
    f"high: use protocol=select to choose{apart}."
  ]


def regime_warnings(config: RunConfig, spec: datasets.DatasetSpec, num_used: int) -> list[str]:
  """Returns a sentence if the rule prescribes another schedule for the `num_used` images.

  Those are the images that are not left out; the rule is resolved before images are left out.
  """
  total = run_config.num_examples(config, spec)
  batch_size = config.batch_size if config.preset == "scaled" else None
  planned, used = (hyperrule.schedule(config.preset, n, batch_size) for n in (total, num_used))
  does = (config.total_steps, config.mixup_alpha)
  if planned == used or does == (used.total_steps, used.mixup_alpha):
    return []
  return [
    f"Of {total:,} training images {num_used:,} are used; the rule prescribes "
    f"{used.total_steps:,} steps and MixUp {used.mixup_alpha:g}, this run uses {does[0]:,} and "
    f"{does[1]:g}; set total_steps and mixup_alpha to follow it."
  ]


def relations(config: RunConfig) -> Iterator[str]:
  """Yields a sentence where the network was pre-trained on the data of the run."""
  if config.weights == catalogue.EMBEDDED and config.dataset in ("cifar100", "vtab/cifar100"):
    yield f"{catalogue.EMBEDDED} was pre-trained on the same images and labels."


def record(
  folder: pathlib.Path,
  config: RunConfig,
  data: pipeline.Loaded,
  digest: str | None,
  dtype: str,
  hardware: devices.Description,
) -> None:
  """Writes what goes into a run to its folder, and prints it.

  Args:
    folder: The run folder.
    config: Resolved.
    data: The training and the evaluated examples.
    digest: SHA-256 of the checkpoint, or None if there is none.
    dtype: The type that convolutions compute in.
    hardware: The devices of the run.
  """
  names = data.train.class_names
  environment = run_folder.describe_environment(
    data=data.version,
    weights=config.weights,
    weights_sha256=digest,
    dtype=dtype,
    order=order.VERSION,
    chosen_on=data.chosen_on,
    content=data.content,
    classes=run_folder.class_digests(names),
    checkpoint_digests=True,
  )
  # First: it may refuse, and the folder stays as it was.
  data.warnings.extend(run_folder.record_environment(folder, environment))
  text = "".join(f"{name}\n" for name in names)
  (folder / run_folder.CLASSES).write_text(text, encoding="utf-8", errors="surrogateescape")
  if data.chosen is not None:
    chosen: dict[str, Any] = {"shots": config.shots, "seed": config.seed}
    chosen |= {"of": "the training split, in its order", "indices": data.chosen}
    if data.listing is not None:
      chosen["paths"] = [data.listing[i][0] for i in data.chosen]
    run_folder.write_json(folder / "fewshot.json", chosen)
  if data.listing is not None:
    run_folder.write_csv(folder / run_folder.SPLIT, [("path", "class", "split"), *data.listing])
  print(
    f"Training on {len(data.train):,} images of {len(names):,} classes ({data.version}), "
    f"evaluating {len(data.test):,}; {environment['num_devices']} x {environment['device']}, "
    f"{environment['dtype']}; run folder {folder}"
  )
  if remark := devices.dtype_remark(config.dtype, hardware):
    print(remark)
  for line in (*_remarks(data), *(f"warning: {text}" for text in relations(config))):
    print(line)


def _remarks(data: pipeline.Loaded) -> Iterator[str]:
  """Yields what the user should know of the loaded data."""
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
      f"The {' and '.join(streamed)} images are streamed: they exceed resident_share of "
      f"device memory when decoded."
    )
