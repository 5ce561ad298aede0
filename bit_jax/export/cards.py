"""Model cards: the README.md of an export, in the form that model hubs show."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from bit_jax.export import checking, form
from bit_jax.inference import networks
from bit_jax.models import architectures
from bit_jax.runs import interval, run_folder
from bit_jax.runtime import phrases
from bit_jax.weights import catalogue

_EVERY = {"classes.txt": "the names of the classes, a line each", "README.md": "the model card"}
_LISTED = 100  # classes that a card names
_LICENCE = "Apache-2.0"  # of the released checkpoints and of this project
_PAPER = "[Big Transfer](https://arxiv.org/abs/1912.11370)"


def short_name(reference: str) -> str:
  """Returns the name of an export: of the run's folder, or of the checkpoint."""
  path = pathlib.Path(reference)
  if path.name == run_folder.WEIGHTS or path.name in ("", ".", ".."):
    path = path.resolve()
    path = path.parent if path.name == run_folder.WEIGHTS else path
  name = path.name
  for suffix in (".npz", ".safetensors"):
    name = name.removesuffix(suffix)
  return name


def listing(export: form.Form, folder: pathlib.Path) -> Iterator[str]:
  """Yields a line for each file of an export: its name, its size and what it holds.

  Args:
    export: The form of the folder.
    folder: The folder.
  """
  sizes = {
    name: _size(path) for name in (*export.files, *_EVERY) if (path := folder / name).exists()
  }
  what = {**export.files, **_EVERY}
  width = max(map(len, sizes))
  for name, size in sizes.items():
    yield f"{name:<{width}}  {size:>9}  {what[name]}"


def _size(path: pathlib.Path) -> str:
  files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
  size = sum(p.stat().st_size for p in files)
  return phrases.file_size(size)


def checked(export: form.Form, difference: float | None) -> str:
  """Returns a sentence on the comparison of an export with its network."""
  if difference is None:
    return (
      f"Not compared with the network: {checking.missing(export)} was not installed where this was "
      f"written."
    )
  apart = f"differ by at most {difference:.1e} of the largest one" if difference else "are equal"
  return (
    f"Compared with the network on 2 test images, in {checking.versioned(export.runtime)}: logits "
    f"{apart}."
  )


def card(
  network: networks.Network,
  export: form.Form,
  folder: pathlib.Path,
  difference: float | None,
  command: str,
) -> str:
  """Returns the text of a model card.

  Args:
    network: What was exported.
    export: Its form.
    folder: Where its files are.
    difference: What `checking.Check.difference` found.
    command: The command line of the export.

  Raises:
    UserError: A record of the run is damaged.
  """
  records = _Records(network)
  name = short_name(network.origin.name if network.origin else network.name)
  table = "\n".join(f"| {key} | {_cell(text)} |" for key, text in _rows(network, records, command))
  files = "\n".join(listing(export, folder))
  parts = [
    _front_matter(export, records),
    f"# {name}",
    _introduction(network, records),
    f"## Use\n\nIn this folder:\n\n```python\n{export.example(network)}\n```\n\n{export.remarks}",
    f"## Facts\n\n| | |\n|---|---|\n{table}",
    f"## Files\n\n```text\n{files}\n```\n\n{checked(export, difference)}",
    _classes(network),
    *_config(network),
  ]
  return "\n\n".join(parts) + "\n"


class _Records:
  """What is known of a network's training.

  Attributes:
    environment: The content of the run's `environment.json`; empty for a checkpoint.
    result: The content of its `result.json`; empty if there is none.
    released: The network's entry in the catalogue, if it is a released checkpoint.
    start: The entry of the checkpoint that the run started with, if it is a released one.
  """

  def __init__(self, network: networks.Network):
    self.environment: Mapping[str, Any] = {}
    self.result: Mapping[str, Any] = {}
    if network.folder is not None:
      self.environment = run_folder.read_json(network.folder / run_folder.ENVIRONMENT) or {}
      self.result = run_folder.finished(network.folder) or {}
    self.released = network.released
    self.start = catalogue.CATALOGUE.get((network.config or {}).get("weights", ""))


def _front_matter(export: form.Form, records: _Records) -> str:
  """Returns the part that hubs read; a run's licence is left to its owner."""
  lines = [f"library_name: {export.library}", "pipeline_tag: image-classification"]
  if records.released:
    lines.append(f"license: {_LICENCE.lower()}")
  lines += ["tags:", "- image-classification", "- bit", "- big-transfer"]
  return "\n".join(["---", *lines, "---"])


def _introduction(network: networks.Network, records: _Records) -> str:
  architecture = network.model.architecture
  classes = phrases.counted(len(network.class_names), "class", "classes")
  text = (
    f"This network assigns images to {classes}. It is the {architecture.name} of {_PAPER} (BiT), a "
    f"ResNet-v2 with weight standardisation and group norm"
  )
  if records.released:
    return f"{text}, trained on {records.released.note.partition(';')[0]}."
  if network.config is None:
    return f"{text}."
  data = records.environment.get("data") or network.config.get("dataset", "unknown data")
  data = str(data).partition(",")[0]  # without its hash
  if network.config.get("weights") == "none":
    return f"{text}, trained on {data} from random initialisation."
  return f"{text}, fine-tuned on {data} by BiT-HyperRule."


def _rows(network: networks.Network, records: _Records, command: str) -> Iterator[tuple[str, str]]:
  """Yields the rows of the table of facts."""
  architecture, size = network.model.architecture, network.size
  count = len(network.class_names)
  yield "accuracy", _accuracy(network, records)
  yield "data", _data(network, records)
  number = architectures.num_parameters(architecture, count)
  flops = architectures.forward_flops(architecture, count, size) / 1e9
  operations = f"{flops:,.1f}" if flops >= 1 else f"{flops:.2g}"
  yield (
    "architecture",
    f"{architecture.name}: {number:,} parameters, {operations} GFLOPs for an image "
    f"(a multiply-add counts as two)",
  )
  yield (
    "preprocessing",
    f"upright (EXIF), RGB, resized to {size} x {size} pixels whatever the aspect ratio (bilinear, "
    f"half-pixel centres, not antialiased), scaled to [-1, 1] as `x / 127.5 - 1`",
  )
  yield "number format", "float32"
  if network.config is not None:
    yield "initial weights", _initial_weights(network.config, records)
    yield "trained with", _trained_with(network.config, records)
  source = network.source
  yield "written from", f"{source.name}, SHA-256 `{source.sha256}`"
  yield "licence", _licence(network, records)
  if network.config is not None:
    made = records.environment.get("command")
    yield "training command", f"`{made}`" if made else "not recorded; all fields are below"
  yield "export command", f"`{command}`"
  yield "versions", f"bit_jax {metadata.version('bit_jax')}, jax {metadata.version('jax')}"


def _cell(text: str) -> str:
  """Returns a text as a cell of a table in Markdown."""
  return text.replace("|", "\\|")


def _accuracy(network: networks.Network, records: _Records) -> str:
  result = records.result
  if "top1" not in result or "num_test" not in result:
    return f"not recorded; `python -m bit_jax.evaluate {network.name} ...` measures it"
  top1, number = result["top1"], result["num_test"]
  part = "validation" if (network.config or {}).get("protocol") == "select" else "test"
  where = phrases.counted(number, f"{part} image")
  text = f"{top1:.2%} top-1 on {where}{interval.in_brackets(top1, number)}"
  if "balanced_accuracy" in result and "macro_f1" in result:
    balanced, f1 = result["balanced_accuracy"], result["macro_f1"]
    text += f"; balanced accuracy {balanced:.2%}, macro F1 {f1:.2%}"
  if (measured := (network.config or {}).get("test_size")) != network.size:
    text += f"; measured at {measured} x {measured} pixels, not at {network.size}"
  if (dtype := records.environment.get("dtype")) not in (None, "float32"):
    text += f"; measured in {dtype}, while the export is float32"
  return text


def _data(network: networks.Network, records: _Records) -> str:
  if network.config is None:
    return records.released.note if records.released else "not recorded in the file"
  data = records.environment.get("data") or network.config.get("dataset", "unknown")
  counts = [
    phrases.counted(records.result[key], f"{part} image")
    for key, part in (("num_train", "training"), ("num_val", "validation"), ("num_test", "test"))
    if key in records.result
  ]
  return f"{data}: {', '.join(counts)}" if counts else str(data)


def _initial_weights(config: Mapping[str, Any], records: _Records) -> str:
  name = config.get("weights")
  if name == "none":
    return "random"
  digest = records.environment.get("weights_sha256")
  about = f" ({records.start.note.partition(';')[0]})" if records.start else ""
  return f"{name}{about}" + (f", SHA-256 `{digest}`" if digest else "")


def _trained_with(config: Mapping[str, Any], records: _Records) -> str:
  texts = [
    f"{config[key]:,} {what}" if isinstance(config.get(key), int) else ""
    for key, what in (("total_steps", "steps"), ("batch_size", "images a step"))
  ]
  if "base_lr" in config:
    texts.append(f"learning rate {config['base_lr']:g}")
  if "resize" in config and "crop" in config:
    texts.append(f"images resized to {config['resize']} and cropped to {config['crop']} pixels")
  if "seed" in config:
    texts.append(f"seed {config['seed']}")
  texts += [
    str(records.environment[key]) for key in ("device", "started") if key in records.environment
  ]
  return ", ".join(filter(None, texts))


def _licence(network: networks.Network, records: _Records) -> str:
  if records.released:
    return f"{_LICENCE}, the licence of the project that released the weights"
  if network.config is None:
    return "that of the weights, which the file doesn't state: add `license:` at the top"
  initial = f"the initial weights are {_LICENCE}; " if records.start else ""
  return (
    f"yours to choose: add `license:` at the top ({initial}the terms of the training images may "
    f"apply, too)"
  )


def _classes(network: networks.Network) -> str:
  names = network.class_names
  shown = ", ".join(name.replace("_", "\\_").replace("*", "\\*") for name in names[:_LISTED])
  more = len(names) - _LISTED
  rest = f" and {more:,} more, in `classes.txt`" if more > 0 else ""
  return f"## Classes\n\nIn the order of the logits: {shown}{rest}."


def _config(network: networks.Network) -> Iterator[str]:
  """Yields all fields of the run, if there is one."""
  if network.config is not None:
    yield f"## Config\n\n```json\n{json.dumps(network.config, indent=2, sort_keys=True)}\n```"
