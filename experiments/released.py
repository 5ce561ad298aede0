"""What released fine-tuned checkpoints are to be evaluated on, how, and what they should reach.

Expected values are looked up, never typed in: in `published_results.csv`, where the setting stands
as well, and for the checkpoint that comes with the package in its model card.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from bit_jax import hyperrule, weights
from bit_jax.data import datasets, vtab
from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from bit_jax.weights import catalogue
from experiments import evaluation, published

NUM_RUNS = 3  # of each released VTAB checkpoint
_DISTILLED = {  # checkpoint: timm's name for it
  "R50x1_224": "resnetv2_50x1_bit.goog_distilled_in1k",
  "R152x2_T_224": "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k",
  "R152x2_T_384": "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384",
}
_SMALL_STUDENT = "R50x1_160"
_TIMM_SETTING = re.compile(r"@(\d+) crop_pct ([\d.]+) (\w+)$")
_VTAB_NAME = re.compile(r"BiT-M-(R\d+x\d)-run(\d)-(.+)")
_CARD = re.compile(
  r"([\d.]+)% top-1, ([\d.]+)% top-5 on the [\d,]+ (\S+) test images, resized to (\d+) pixels"
)


@dataclasses.dataclass(frozen=True)
class Expected:
  """A published value.

  Attributes:
    metric: 'top1' or 'top5'.
    value: In per cent.
    rounding: Half a unit of its last digit.
    source: Where it was published.
    judged: Whether it was obtained as it is measured here, so that a difference tells something.
  """

  metric: str
  value: float
  rounding: float
  source: str
  judged: bool = True


@dataclasses.dataclass(frozen=True)
class Check:
  """A checkpoint to be evaluated in one way.

  Attributes:
    name: Of the checkpoint, or of its file.
    weights: Its name or the path of a file.
    dataset: As in configs.
    view: How test images are prepared.
    expected: Published values for just that; none for a task of VTAB.
  """

  name: str
  weights: str
  dataset: str
  view: evaluation.View
  expected: tuple[Expected, ...] = ()


def names() -> list[str]:
  """Returns all checkpoints that there is something to check of."""
  return [name for name in weights.CATALOGUE if checks(name)]


def checks(name: str) -> list[Check]:
  """Returns how a checkpoint of the catalogue is evaluated; [] where there is nothing to compare.

  Nothing is known of pre-trained networks, whose heads tell ImageNet-21k's classes, and of the
  teachers at 128 pixels no accuracy was published.
  """
  return list(_checks(weights.find(name)))


def vtab_run(name: str) -> tuple[str, int, str] | None:
  """Returns (architecture, run, task) of a VTAB checkpoint's name, None of another's."""
  match = _VTAB_NAME.fullmatch(name)
  return (match[1], int(match[2]), match[3]) if match else None


def vtab_score(architecture: str) -> published.Result | None:
  """Returns the published mean over the 19 tasks, which two of the networks have."""
  try:
    return published.find(
      "big_transfer README VTAB-1k", f"BiT-M-{architecture}", "vtab-1k all 19", "top1"
    )
  except LookupError:
    return None


def vtab_sizes(task: str) -> dict[str, int]:
  """Returns {'paper' or 'code': test size in pixels} of a task.

  No source says at which of the two the released runs were trained.
  """
  image_size = vtab.find(task).image_size
  # R50x1 for all: of R152x4 paper and code agree, and 384 is tried nonetheless.
  sizes = (hyperrule.resolution(image_size, "R50x1", s)[1] for s in hyperrule.RESOLUTIONS)
  return dict(zip(hyperrule.RESOLUTIONS, sizes, strict=True))


def of_file(path: str, dataset: str | None, size: int | None) -> list[Check]:
  """Returns how a file of the user's is evaluated.

  A model card beside it (with `.md` for `.npz`) says on what, at which size, and what to expect; a
  file that is called as a released one is taken for it. Unless another set or size is asked for. Of
  a run's weights its `config.json` says on what and at which size.

  Args:
    path: The `.npz` file.
    dataset: On what; None: as its name or its card says.
    size: Side of the square that test images are resized to, in pixels; None: as the card or the
      run says, or the rule.

  Raises:
    UserError: There is no such file, or nothing says on what to evaluate it.
  """
  file = weights.locate(path)
  card = _from_card(file, file.stem)
  known = checks(file.stem) if file.stem in weights.CATALOGUE else []
  told = [
    dataclasses.replace(check, weights=str(file))
    for check in ([card] if card else known)
    if dataset in (None, check.dataset) and size in (None, check.view.size)
  ]
  if told:
    return told
  run = run_folder.read_json(file.parent / run_folder.CONFIG)
  own = run if isinstance(run, dict) and not run.get("data_path") else {}  # that of a named set
  dataset = dataset or own.get("dataset")
  if dataset == own.get("dataset"):
    size = size or own.get("test_size")
  if dataset is None:
    raise errors.UserError(f"Nothing says on what {path} is to be evaluated: give --dataset=NAME.")
  if size is None:
    image_size = datasets.find(dataset, "final").image_size
    size = hyperrule.resolution(image_size, "R50x1", "code")[1]
  return [Check(file.stem, str(file), dataset, evaluation.View(size))]


def _checks(checkpoint: catalogue.Checkpoint) -> Iterator[Check]:
  name = checkpoint.name
  if checkpoint.embedded:
    card = _from_card(weights.locate(name), name)
    if card is None:
      raise LookupError(f"the model card of {name} states no accuracy")
    yield card
  elif name == "BiT-M-R50x1-CIFAR10":
    yield _cifar(name)
  elif name.endswith("-ILSVRC2012"):
    depth, width = checkpoint.architecture.removeprefix("R").split("x")
    yield _by_timm(name, f"resnetv2_{depth}x{width}_bit.goog_in21k_ft_in1k")
  elif name in _DISTILLED:
    yield _by_timm(name, _DISTILLED[name])
  elif name == _SMALL_STUDENT:
    yield _small_student(name)
  elif run := vtab_run(name):
    for size in sorted(set(vtab_sizes(run[2]).values())):
      yield Check(name, name, f"vtab/{run[2]}", evaluation.View(size))


def _cifar(name: str) -> Check:
  """Returns the check that the official colabs print: test images resized to 128 pixels."""
  model = f"{name}.npz"
  found = [
    published.find(f"big_transfer {source}", model, "cifar10", "top1")
    for source in ("JAX colab output", "PyTorch colab output", "PyTorch colab (printed")
  ]
  size = re.search(r"resize (\d+)", found[0].model)
  assert size is not None
  return Check(
    name,
    name,
    "cifar10",
    evaluation.View(int(size[1])),
    tuple(_expected("top1", result) for result in found),
  )


def _by_timm(name: str, model: str) -> Check:
  """Returns the check by timm's table, in the setting that stands there."""
  found = {
    metric: published.find("timm results", model, "imagenet2012 val", metric)
    for metric in ("top1", "top5")
  }
  setting = _TIMM_SETTING.search(found["top1"].model)
  assert setting is not None
  size, share, interpolation = setting.groups()
  return Check(
    name,
    name,
    "imagenet2012",
    evaluation.crop_of(int(size), float(share), interpolation),
    tuple(_expected(metric, result) for metric, result in found.items()),
  )


def _small_student(name: str) -> Check:
  """Returns the check of the student at 160 pixels, of which the paper alone tells.

  It doesn't say from which size the 160 pixels are taken: here in the proportion of its 224 of 256.
  """
  result = published.find("FunMatch", f"{name}.npz", "imagenet2012", "top1")
  size = int(name.rpartition("_")[2])
  view = evaluation.crop_of(size, 224 / 256, "bilinear")
  return Check(name, name, "imagenet2012", view, (_expected("top1", result, judged=False),))


def _expected(metric: str, result: published.Result, *, judged: bool = True) -> Expected:
  return Expected(metric, result.value, result.rounding, result.source, judged)


def _from_card(file: pathlib.Path, name: str) -> Check | None:
  """Returns what the model card beside a file says, None if there is none or it says nothing."""
  card = file.with_suffix(".md")
  match = _CARD.search(card.read_text(encoding="utf-8")) if card.is_file() else None
  if match is None:
    return None
  top1, top5, dataset, size = match.groups()
  expected = tuple(
    Expected(metric, float(text), published.rounding(text), f"model card {card.name}")
    for metric, text in (("top1", top1), ("top5", top5))
  )
  view = evaluation.View(int(size))
  return Check(name, str(file), dataset.lower().replace("-", ""), view, expected)
