"""Networks that are ready to use: of a run folder, a checkpoint file, or a released checkpoint."""

import dataclasses
import os
import pathlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from bit_jax import hyperrule, weights
from bit_jax.data import datasets, vtab
from bit_jax.models import architectures, resnet_v2
from bit_jax.runs import run_folder
from bit_jax.runtime import checks, devices, errors, paths, phrases
from bit_jax.weights import catalogue, classes, timm_config

_PRETRAINING = 224  # pixels of the crops in BiT's pre-training (paper, 3.2)
_TUNED_ON = {"ILSVRC2012": "imagenet2012", "CIFAR10": "cifar10"}  # data sets by ends of names
_DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Origin:
  """The checkpoint that a folder without a run was exported from: `checkpoint` in its config.

  Attributes:
    name: Its name in the catalogue, or that of its file, which ends in `.npz` or `.safetensors`.
    sha256: Of the file, in hexadecimal.
  """

  name: str
  sha256: str


@dataclasses.dataclass(frozen=True)
class Network:
  """A network with its parameters.

  Attributes:
    name: As the user gave it.
    model: The network, its dtype that of this machine's devices unless chosen.
    params: Its parameters on the host, float32.
    class_names: [C] in the order of the logits.
    size: Side in pixels of the square that images are resized to.
    file: The file of its parameters.
    sha256: Of that file, in hexadecimal.
    folder: The run folder that it comes from; None for a checkpoint.
    config: The folder's `config.json`; None for a checkpoint.
    remarks: Sentences on what was assumed, for the user.
    origin: The checkpoint that it was exported from as a folder; a run's export is a run's folder.
  """

  name: str
  model: resnet_v2.ResNetV2
  params: Any
  class_names: tuple[str, ...]
  size: int
  file: pathlib.Path
  sha256: str
  folder: pathlib.Path | None = None
  config: Mapping[str, Any] | None = None
  remarks: tuple[str, ...] = ()
  origin: Origin | None = None

  @property
  def released(self) -> catalogue.Checkpoint | None:
    """Its entry in the catalogue, if it is a released checkpoint, by its name or its path."""
    if self.folder:
      return None
    name = self.origin.name if self.origin else self.name
    return _known(name, self.model.architecture.name, self.model.num_classes)

  @property
  def source(self) -> Origin:
    """Where its weights come from: the checkpoint, or the file of a run."""
    return self.origin or Origin(
      self.released.name if self.released else self.file.name, self.sha256
    )


def load(reference: str, *, size: int | None = None, dtype: str = "auto") -> Network:
  """Loads a network with its head.

  Args:
    reference: A run folder or one that was exported (or its `model.npz`), a checkpoint file, or the
      name of a released checkpoint, which is downloaded unless it is in the cache.
    size: Side in pixels of the square that images are resized to; None: the run's, that of the
      checkpoint's training, or that of timm's `config.json` beside the file.
    dtype: Of convolutions: 'float32', 'bfloat16' or 'auto', which is the run's setting, by default
      bfloat16 on accelerators that have it natively and float32 elsewhere.

  Raises:
    UserError: It doesn't exist, is damaged, is an unfinished run, or has no head.
  """
  if size is not None:
    checks.in_range("size", size, 1, hyperrule.MAX_SIDE)
  if dtype not in _DTYPES:
    raise errors.UserError(f"dtype={dtype} is not one of {', '.join(_DTYPES)}.")
  folder = _run_folder(reference)
  return _of_run(reference, folder, size, dtype) if folder else _released(reference, size, dtype)


def _run_folder(reference: str) -> pathlib.Path | None:
  """Returns the run folder that a reference names, or that its `model.npz` is in; else None.

  Raises:
    UserError: It is a folder without a run.
  """
  path = paths.named(reference)
  if path.name == run_folder.WEIGHTS and (path.parent / run_folder.CONFIG).is_file():
    return path.parent
  if not os.path.isdir(path):
    return None
  if not (path / run_folder.CONFIG).is_file():
    raise errors.UserError(
      f"{path} is not a run folder (it has no {run_folder.CONFIG}): give a folder that `python -m "
      f"bit_jax.train` wrote, a checkpoint file, or the name of a released checkpoint."
    )
  return path


def _of_run(reference: str, folder: pathlib.Path, size: int | None, dtype: str) -> Network:
  config = run_folder.read_json(folder / run_folder.CONFIG) or {}
  file = folder / run_folder.WEIGHTS
  if not file.is_file():
    raise errors.UserError(
      f"{folder} has no {run_folder.WEIGHTS}: the run isn't finished. Run the same training "
      f"command again to finish it."
    )
  model, side, of_run = (config.get(name) for name in ("model", "test_size", "dtype"))
  for name, value, is_right in (
    ("model", model, isinstance(model, str)),
    ("test_size", side, isinstance(side, int) and 1 <= side <= hyperrule.MAX_SIDE),
    ("dtype", of_run, of_run in _DTYPES),
  ):
    if not is_right:
      raise errors.UserError(
        f"{folder / run_folder.CONFIG} is damaged ({name} is {value!r:.40}): restore it."
      )
  architecture = architectures.find(config["model"])
  _, num_classes = weights.infer(file)
  names, remark = _class_names(folder / run_folder.CLASSES, num_classes)
  loaded = weights.load(file, architecture, head="keep", num_classes=num_classes)
  chosen = config["dtype"] if dtype == "auto" else dtype
  exported_from = origin(config)
  return Network(
    name=reference,
    model=_model(architecture, num_classes, chosen),
    params=loaded.params,
    class_names=names,
    size=size or config["test_size"],
    file=file,
    sha256=loaded.sha256,
    folder=None if exported_from else folder,
    config=None if exported_from else config,
    remarks=remark,
    origin=exported_from,
  )


def origin(config: Mapping[str, Any]) -> Origin | None:
  """Returns the checkpoint that a folder with this config was exported from; None for a run."""
  found = config.get("checkpoint")
  if not isinstance(found, dict):
    return None
  return Origin(*(str(found.get(field.name, "")) for field in dataclasses.fields(Origin)))


def _class_names(path: pathlib.Path, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Returns the names in a run's `classes.txt`, and a remark if there is no such file.

  Raises:
    UserError: It has another number of names than the network has classes, a name twice, or the
      run's names in another order.
  """
  try:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
  except FileNotFoundError:
    return classes.unnamed(count), (f"{path} doesn't exist: classes are named by their numbers.",)
  found = tuple(text.removesuffix("\n").split("\n"))
  if len(found) != count:
    raise errors.UserError(
      f"{path} names {len(found)} classes, and the network has {count}: restore the file."
    )
  if repeated := [name for name, times in Counter(found).items() if times > 1]:
    raise errors.UserError(
      f"{path} has the name {phrases.some(repeated)} more than once, so it is not known which "
      f"output is meant: give each class a name of its own."
    )
  run_folder.require_class_order(path.parent, found)
  return found, ()


def head_classes(reference: str, file: pathlib.Path, num_classes: int) -> tuple[str, ...] | None:
  """Returns the class names of a checkpoint's head, [C] in the order of its outputs.

  Args:
    reference: Its name or path, as the user gave it.
    file: Its file.
    num_classes: C.

  Returns:
    The names; None if they are unknown, or the file has no head of C classes.

  Raises:
    UserError: It is a run's, whose `classes.txt` can't be used.
  """
  if weights.infer(file)[1] != num_classes:
    return None
  folder = _run_folder(str(file))
  if folder is None:
    found = weights.class_names(reference, num_classes)
  else:
    found = _class_names(folder / run_folder.CLASSES, num_classes)[0]
  return None if found == classes.unnamed(num_classes) else found


def _released(reference: str, size: int | None, dtype: str) -> Network:
  file = weights.resolve(reference)
  inferred, num_classes = weights.infer(file)
  if inferred is None:
    raise errors.UserError(f"{file} is not a BiT checkpoint: its arrays fit no architecture.")
  if not num_classes:
    raise errors.UserError(
      f"{file} has no head, so it predicts no classes: give a checkpoint with its head."
    )
  remarks = []
  known = _known(reference, inferred, num_classes)
  stated = timm_config.read(file).size
  if size is None and known is None and stated is None:
    remarks.append(f"Images are resized to {_PRETRAINING} pixels, unless you choose another size.")
  if size is None:
    size = default_size(known) if known else stated or _PRETRAINING
    checks.in_range(
      f"The size that the config.json beside {file} states", size, 1, hyperrule.MAX_SIDE
    )
  class_names = weights.class_names(reference, num_classes)
  if class_names == classes.unnamed(num_classes):
    remarks.append(f"{file} doesn't state its classes: they are named by their numbers.")
  architecture = architectures.find(inferred)
  loaded = weights.load(file, architecture, head="keep", num_classes=num_classes)
  return Network(
    name=reference,
    model=_model(architecture, num_classes, dtype),
    params=loaded.params,
    class_names=class_names,
    size=size,
    file=file,
    sha256=loaded.sha256,
    remarks=tuple(remarks),
  )


def _known(name: str, architecture: str, num_classes: int) -> catalogue.Checkpoint | None:
  """Returns the released checkpoint that a name or a path names, if the network is like it."""
  found = catalogue.named(name)
  alike = found and (found.architecture, found.num_classes) == (architecture, num_classes)
  return found if alike else None


def default_size(checkpoint: catalogue.Checkpoint) -> int:
  """Returns the side in pixels to which images are resized for a released checkpoint.

  That of its evaluation: the rule's crop of the data set that it was fine-tuned on, the size in the
  name of distilled ones, and 224 for those that were only pre-trained.
  """
  if checkpoint.embedded:
    return 48  # see its model card
  if checkpoint.copy_of:
    return default_size(catalogue.find(checkpoint.copy_of))
  if found := re.search(r"-run\d-(.+)$", checkpoint.name):
    image_size = vtab.find(found[1]).image_size
    return hyperrule.resolution(image_size, checkpoint.architecture, "paper")[1]
  if found := re.search(r"_[a-z]*(\d+)$", checkpoint.name):
    return int(found[1])
  task = checkpoint.name.rpartition("-")[2]
  if task in _TUNED_ON:
    image_size = datasets.find(_TUNED_ON[task], "final").image_size
    return hyperrule.resolution(image_size, checkpoint.architecture, "code")[1]
  return _PRETRAINING


def _model(
  architecture: architectures.Architecture, num_classes: int, dtype: str
) -> resnet_v2.ResNetV2:
  hardware = devices.describe()
  computed = devices.compute_dtype(dtype, hardware)
  return resnet_v2.create(architecture.name, num_classes, computed, hardware.platform)
