"""Every released BiT checkpoint by name, timm's copies, and the small one in this package.

Sources: google-research/big_transfer `README.md` (BiT-S, BiT-M, -ILSVRC2012, VTAB, distilled) and
its colabs (-CIFAR10); google-research/big_vision `configs/proj/distill/common.py` (the teachers at
128 pixels); huggingface/pytorch-image-models 1.0.31 `timm/models/resnetv2.py` (the copies).
"""

import dataclasses
import difflib
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Literal

from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.runtime import errors, paths

BASE_URL = "https://storage.googleapis.com/bit_models/"

_DISTILLED = {  # stem: (classes, their data set, note)
  "R50x1_160": (1000, "imagenet1k", "distilled student, ILSVRC-2012 at 160 pixels"),
  "R50x1_224": (1000, "imagenet1k", "distilled student, ILSVRC-2012 at 224 pixels"),
  "R152x2_T_224": (1000, "imagenet1k", "teacher, ILSVRC-2012 at 224 pixels"),
  "R152x2_T_384": (1000, "imagenet1k", "teacher, ILSVRC-2012 at 384 pixels"),
  "R152x2_T_flowers128": (102, "oxford_flowers102", "teacher, Flowers at 128 pixels"),
  "R152x2_T_pet128": (37, "oxford_iiit_pet", "teacher, Pets at 128 pixels"),
  "R152x2_T_food128": (101, "food101", "teacher, Food-101 at 128 pixels"),
  "R152x2_T_sun128": (397, "sun397", "teacher, SUN397 at 128 pixels"),
}
# Tag of timm's copy: the checkpoint, where {} is the architecture.
_TIMM_TAGS = {"goog_in21k": "BiT-M-{}", "goog_in21k_ft_in1k": "BiT-M-{}-ILSVRC2012"}
_TIMM_DISTILLED = {
  "timm/resnetv2_50x1_bit.goog_distilled_in1k": "R50x1_224",
  "timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k": "R152x2_T_224",
  "timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384": "R152x2_T_384",
}
_HUB_FILE = "model.safetensors"
EMBEDDED = "R14x0.5-CIFAR100"
_RELEASED = tuple(a for a in architectures.ARCHITECTURES if a not in architectures.SMALL)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """One checkpoint of the catalogue.

  Attributes:
    name: The file's name without its folder and `.npz`; of timm's copies, the repository on the
      Hugging Face hub.
    architecture: Short name of the network, a key of `architectures.ARCHITECTURES`.
    num_classes: Outputs of its head.
    labels: The data set whose classes they are: a key of `assets/class_names.json`, or a task of
      VTAB-1k.
    file: Path below `BASE_URL` and below the cache directory; if embedded, below the package; of
      timm's copies, in the repository.
    note: The data that it was trained on.
    source: Where it is: with the released ones, in this package, or on the Hugging Face hub.
    copy_of: The released checkpoint with the same weights; '' if it is none of timm's copies.
  """

  name: str
  architecture: str
  num_classes: int
  labels: str
  file: str
  note: str
  source: Literal["released", "package", "hub"] = "released"
  copy_of: str = ""

  @property
  def embedded(self) -> bool:
    """Whether it comes with this package and is never downloaded."""
    return self.source == "package"

  @property
  def num_parameters(self) -> int:
    """The number of parameters, head included."""
    return architectures.num_parameters(architectures.find(self.architecture), self.num_classes)


def _checkpoints() -> Iterator[Checkpoint]:
  pretrained = ("BiT-S", "imagenet1k", "ILSVRC-2012"), ("BiT-M", "imagenet21k", "ImageNet-21k")
  for family, labels, note in pretrained:
    classes = architectures.PRETRAINED_CLASSES[family]
    for arch in _RELEASED:
      yield Checkpoint(f"{family}-{arch}", arch, classes, labels, f"{family}-{arch}.npz", note)
  note = "ImageNet-21k, then ILSVRC-2012"
  for arch in _RELEASED:
    name = f"BiT-M-{arch}-ILSVRC2012"
    yield Checkpoint(name, arch, 1000, "imagenet1k", f"{name}.npz", note)
  name, note = "BiT-M-R50x1-CIFAR10", "ImageNet-21k, then CIFAR-10"
  yield Checkpoint(name, "R50x1", 10, "cifar10", f"{name}.npz", note)
  for arch, task, run in itertools.product(_RELEASED, vtab.TASKS, range(3)):
    if arch != "R152x2":
      name = f"BiT-M-{arch}-run{run}-{task}"
      note = f"ImageNet-21k, then VTAB-1k {task}, run {run}"
      classes = vtab.find(task).num_classes
      yield Checkpoint(name, arch, classes, task, f"vtab/{name}.npz", note)
  for stem, (classes, labels, note) in _DISTILLED.items():
    yield Checkpoint(stem, stem.split("_")[0], classes, labels, f"distill/{stem}.npz", note)
  file, note = f"assets/{EMBEDDED}.npz", "CIFAR-100; comes with this package, kernels in float16"
  yield Checkpoint(EMBEDDED, "R14x0.5", 100, "cifar100", file, note, "package")


def _timm_copies(released: Mapping[str, Checkpoint]) -> Iterator[Checkpoint]:
  same = {
    f"timm/resnetv2_{arch.removeprefix('R')}_bit.{tag}": name.format(arch)
    for arch, (tag, name) in itertools.product(_RELEASED, _TIMM_TAGS.items())
  }
  for name, copy_of in (same | _TIMM_DISTILLED).items():
    yield dataclasses.replace(
      released[copy_of], name=name, file=_HUB_FILE, source="hub", copy_of=copy_of
    )


_released = {c.name: c for c in _checkpoints()}
CATALOGUE = _released | {c.name: c for c in _timm_copies(_released)}


def find(name: str) -> Checkpoint:
  """Returns the checkpoint called `name`.

  Raises:
    UserError: There is none of this name, or it is a BiT-L, which was never released.
  """
  if name in CATALOGUE:
    return CATALOGUE[name]
  if name.startswith("BiT-L"):
    architectures.find(name)  # says that it was never released
  close = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.75)
  hint = f"did you mean {' or '.join(close)}? " if close else ""
  raise errors.UserError(
    f"Unknown checkpoint {name!r}: {hint}`python -m bit_jax.weights list` shows all "
    f"{len(CATALOGUE)} names. For your own file, give a path that has a slash or ends in .npz or "
    f".safetensors."
  )


def named(reference: str) -> Checkpoint | None:
  """Returns the checkpoint of a name, or as a path is called (`of_file`); None if there is none."""
  return CATALOGUE.get(reference) or of_file(paths.named(reference))


def of_file(path: pathlib.Path) -> Checkpoint | None:
  """Returns the checkpoint that a file is called like, or None; its content may be another.

  A `model.safetensors` is called like its folder: timm's name, or that of the hub's cache.
  """
  name = path.stem
  if path.name == _HUB_FILE:
    cached = path.parent.parent.name == "snapshots"
    name = (path.parents[2] if cached else path.parent).name.removeprefix("models--timm--")
  return CATALOGUE.get(name if path.suffix == ".npz" else f"timm/{name}")


def default_for(model: str) -> str:
  """Returns the name of a model's checkpoint: the model's own, or for 'R14x0.5' the embedded one.

  Raises:
    UserError: There is no such model, or it is an architecture without released weights.
  """
  architecture = architectures.find(model).name
  if model in CATALOGUE:
    return model
  if architecture == CATALOGUE[EMBEDDED].architecture:
    return EMBEDDED
  other = "R14x0.5" if architecture in architectures.SMALL else f"BiT-M-{architecture}"
  raise errors.UserError(
    f"model={model} names an architecture without weights: set weights=<name or path>, "
    f"weights=none for random initialisation, or model={other}."
  )
