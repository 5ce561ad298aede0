"""Released fine-tuned checkpoints: data set, image preparation and expected accuracy of each.

Expected values and settings are read from `published_results.csv`, and for the checkpoint in the
package from its model card.
"""

import contextlib
import dataclasses
import math
import pathlib
import re

from bit_jax import hyperrule, weights
from bit_jax.data import datasets, vtab
from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from experiments import evaluation, published

_IN_TIMM = {
  c.copy_of: c.name.removeprefix("timm/") for c in weights.CATALOGUE.values() if c.copy_of
}
_TIMM_SETTING = re.compile(r"@(\d+) crop_pct ([\d.]+) (\w+)$")
_VTAB_NAME = re.compile(r"BiT-M-(R\d+x\d)-run(\d)-(.+)")
_CARD = re.compile(
  r"([\d.]+)% top-1, ([\d.]+)% top-5 on the [\d,]+ (\S+) test images, resized to (\d+) pixels"
)


@dataclasses.dataclass(frozen=True)
class Check:
  """One evaluation of a checkpoint.

  Attributes:
    name: Name of the checkpoint or of its file.
    weights: Its name or the path of a file.
    dataset: As in configs.
    view: How test images are prepared.
    expected: Published values for this evaluation; none for a VTAB task.
  """

  name: str
  weights: str
  dataset: str
  view: evaluation.View
  expected: tuple[published.Result, ...] = ()


def names() -> list[str]:
  """Returns all checkpoints of the catalogue that can be checked."""
  return [name for name in weights.CATALOGUE if checks(name)]


def checks(name: str) -> list[Check]:
  """Returns the evaluations of a checkpoint of the catalogue; [] if there is nothing to compare.

  Pre-trained networks have heads for ImageNet-21k and no published accuracy, nor have the teachers
  at 128 pixels. That of the student at 160 pixels was published without the size before its crop.
  """
  checkpoint = weights.find(name)
  if checkpoint.embedded and (card := _from_card(weights.locate(name))):
    return [dataclasses.replace(card, name=name)]
  if name == "BiT-M-R50x1-CIFAR10":
    expected = tuple(
      published.find(f"big_transfer {source}", f"{name}.npz", "cifar10", "top1")
      for source in ("JAX colab output", "PyTorch colab output", "PyTorch colab (printed")
    )
    return [Check(name, name, "cifar10", evaluation.View(128), expected)]
  if checkpoint.labels == "imagenet1k" and name in _IN_TIMM:
    return [_by_timm(name, _IN_TIMM[name])]
  if run := vtab_run(name):
    sizes = sorted(set(vtab_sizes(run[2]).values()))
    return [Check(name, name, f"vtab/{run[2]}", evaluation.View(size)) for size in sizes]
  return []


def vtab_run(name: str) -> tuple[str, int, str] | None:
  """Returns (architecture, run, task) of a VTAB checkpoint's name, None for other names."""
  match = _VTAB_NAME.fullmatch(name)
  return (match[1], int(match[2]), match[3]) if match else None


def vtab_score(architecture: str) -> published.Result | None:
  """Returns the published mean over the 19 tasks, which exists for two of the networks."""
  with contextlib.suppress(LookupError):
    source, dataset = "big_transfer README VTAB-1k", "vtab-1k all 19"
    return published.find(source, f"BiT-M-{architecture}", dataset, "top1")
  return None


def vtab_sizes(task: str) -> dict[str, int]:
  """Returns {'paper' or 'code': test size in pixels} of a task.

  No source states which of the two the released runs were trained at.
  """
  image_size = vtab.find(task).image_size
  # R50x1 stands for all networks: R152x4, whose sizes agree, is evaluated at 384 as well.
  return {
    rule: hyperrule.resolution(image_size, "R50x1", rule)[1] for rule in hyperrule.RESOLUTIONS
  }


def of_file(path: str, dataset: str | None, size: int | None) -> list[Check]:
  """Returns the evaluations of a user's file.

  Unless another data set or size is given, they come from the model card beside it (`.md` instead
  of `.npz`), or from the released checkpoint of the same name. Otherwise the `config.json` of a run
  beside it gives data set and size.

  Args:
    path: The `.npz` file.
    dataset: The data set to evaluate on, or None.
    size: Side of the square that test images are resized to, in pixels; None: as the card or the
      run states, else by the rule.

  Raises:
    UserError: The file doesn't exist, or the data set is unknown.
  """
  file = weights.locate(path)
  card = _from_card(file)
  known = [card] if card else checks(file.stem) if file.stem in weights.CATALOGUE else []
  stated = [
    dataclasses.replace(check, weights=str(file))
    for check in known
    if dataset in (None, check.dataset) and size in (None, check.view.size)
  ]
  if stated:
    return stated
  run = run_folder.read_json(file.parent / run_folder.CONFIG) or {}
  if run.get("data_path"):  # a set of the user's own has no name
    run = {}
  dataset = dataset or run.get("dataset")
  if dataset is None:
    raise errors.UserError(f"The data set of {path} is unknown: name it with --dataset=NAME.")
  if size is None and dataset == run.get("dataset"):
    size = run.get("test_size")
  if size is None:
    image_size = datasets.find(dataset, "final").image_size
    size = hyperrule.resolution(image_size, "R50x1", "code")[1]
  return [Check(file.stem, str(file), dataset, evaluation.View(size))]


def _by_timm(name: str, model: str) -> Check:
  """Returns the check by timm's table, with the image preparation that it states."""
  found = tuple(
    published.find("timm results", model, "imagenet2012 val", metric) for metric in ("top1", "top5")
  )
  setting = _TIMM_SETTING.search(found[0].model)
  assert setting is not None
  size, share, interpolation = setting.groups()
  view = evaluation.View(int(size), math.floor(int(size) / float(share)), interpolation)
  return Check(name, name, "imagenet2012", view, found)


def _from_card(file: pathlib.Path) -> Check | None:
  """Returns the check of the model card beside a file, None without a card or an accuracy."""
  card = file.with_suffix(".md")
  match = _CARD.search(card.read_text(encoding="utf-8")) if card.is_file() else None
  if match is None:
    return None
  *accuracies, dataset, size = match.groups()
  expected = tuple(
    published.result(metric, text, f"model card {card.name}")
    for metric, text in zip(("top1", "top5"), accuracies, strict=True)
  )
  name = dataset.lower().replace("-", "")
  return Check(file.stem, str(file), name, evaluation.View(int(size)), expected)
