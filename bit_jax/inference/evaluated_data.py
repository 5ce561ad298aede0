"""Which images a network is evaluated on: a part of a run's data, of a config's, or at a path."""

import csv
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from bit_jax import run_config
from bit_jax.data import datasets, opening, overlap, pipeline
from bit_jax.data.sources import folder, scan
from bit_jax.inference import labelled_images
from bit_jax.inference.networks import Network
from bit_jax.runs import run_folder
from bit_jax.runtime import devices, errors, files, paths, phrases
from bit_jax.weights import classes

# Where no config sets them: images over all devices, and the share of their memory for images.
_BATCH_SIZE, _RESIDENT_SHARE = 256, 0.4
_ELSEWHERE = "choose another with --out=DIR"
_LONGEST_WORD = 60  # characters of a label in the name of a folder


@dataclasses.dataclass(frozen=True)
class EvaluatedData:
  """Images to evaluate a network on; no image is read yet.

  Attributes:
    data: Their data set, with labels that are classes of the network.
    part: The part of it, as `pipeline.load_part` takes it.
    selection: Which of its examples are used.
    title: A phrase that names the images, such as 'the test part of digits'.
    label: A text that names them among all images: 'test', of the run's own; with the data set or
      the path before it, of others.
    batch_size: Images at once over all devices.
    resident_share: The share of a device's memory that decoded images may take.
    images: The folder, CSV or npz file that they are in; None for other sets.
    scanned: The scan of that folder or CSV, if it is in the config of a data set.
  """

  data: opening.Opened
  part: str
  selection: datasets.Selection
  title: str
  label: str
  batch_size: int = _BATCH_SIZE
  resident_share: float = _RESIDENT_SHARE
  images: pathlib.Path | None = None
  scanned: scan.Scan | None = None

  @property
  def size(self) -> int:
    """Side in pixels of the square that images are resized to."""
    return self.selection.test_size

  def sized(self, network: Network) -> Network:
    """Returns a network that takes images of this size; its remarks were on another one."""
    if self.size == network.size:
      return network
    return dataclasses.replace(network, size=self.size, remarks=())

  def load(self) -> tuple[pipeline.LoadedPart, list[str]]:
    """Reads the images, as far as they fit in memory.

    Returns:
      The images; and, of images at a path, a sentence on each that can't be read, which is left
      out.

    Raises:
      UserError: None, or one of a run's, can be read; or the data set doesn't exist.
    """
    room = self.resident_share * devices.resident_memory(devices.describe())
    if self.files is not None:
      return pipeline.load_readable(self.data, self.selection, self.part, room)
    return pipeline.load_part(self.data, self.selection, self.part, room), []

  @property
  def files(self) -> folder.Files | None:
    """The image files at a path; None for a data set of a config."""
    at_path = isinstance(self.data, labelled_images.AtPath)
    source = self.data.sources().test if at_path else None
    return source if isinstance(source, folder.Files) else None


def choose(
  network: Network,
  *,
  split: str | None = None,
  path: str | None = None,
  request: run_config.Request | None = None,
  size: int | None = None,
  matched: bool = True,
) -> EvaluatedData:
  """Chooses the images to evaluate a network on.

  Args:
    network: The network.
    split: 'test', 'train' or 'val'; for sets of tensorflow-datasets any split in its notation. None
      is what a run evaluates itself: its test part, with protocol=select its held-out part.
    path: A folder, a CSV or an npz file of labelled images; or the place of a run's own images, if
      they have been moved: they are then split as the run did.
    request: The config of a data set; None: the run's own, unless there is a path.
    size: The side in pixels that the user chose, which is the network's; None: with a config, a
      checkpoint file of unknown origin gets images of the config's size.
    matched: Whether labels are classes of the network; otherwise those of the images.

  Raises:
    UserError: There are no such images, they can't be used, or their classes are not the network's.
  """
  classes = _classes(network) if matched else None
  if request is not None:
    if path is not None:
      raise errors.UserError("Give either --config or --path, not both.")
    return _of_config(network, classes, request, split, size)
  if path is not None:
    found = _scan(datasets.kind_of(path), path)
    moved = _moved(network, path, found)
    if moved is None:
      return _at_path(network, classes, path, split, found)
    return _part_of(classes, *moved, split, found)
  if network.config is None:
    raise errors.UserError(
      f"{network.name} is a checkpoint, which has no data of its own: add --path=FOLDER of your "
      f"own labelled images, or the config of a data set, such as --config=configs/cifar10.py."
    )
  return _of_run(network, classes, split)


def _scan(dataset: Any, path: Any) -> scan.Scan | None:
  """Returns the scan of a folder or CSV, for all that look at it; None of other sets."""
  if dataset != "folder" or not path or not isinstance(path, str):
    return None
  try:
    return folder.find(path)
  except errors.UserError:  # whoever opens it says why
    return None


def _moved(
  network: Network, path: str, found: scan.Scan | None
) -> tuple[run_config.RunConfig, opening.Opened] | None:
  """Returns config and data of a run whose images are now at a path; None if those are others."""
  if network.config is None or network.config.get("dataset") not in datasets.OWN:
    return None
  try:
    config, data = _opened(network, {"data_path": path}, found)
  except errors.UserError:  # no data to train on
    return None
  return (config, data) if _unchanged(network, data) else None


def _opened(
  network: Network, changes: Mapping[str, Any], found: scan.Scan | None
) -> tuple[run_config.RunConfig, opening.Opened]:
  """Returns the config of a run with some fields changed, and its data set."""
  fields = {**(network.config or {}), **changes, "test_size": network.size}
  return run_config.prepare(ml_collections.ConfigDict(fields), found)


def _unchanged(network: Network, data: opening.Opened) -> bool | None:
  """Returns whether a run was trained with the user's images; None without a record of them."""
  assert network.folder is not None
  environment = run_folder.read_json(network.folder / run_folder.ENVIRONMENT) or {}
  version, _, content = data.identity()
  recorded = _digest(environment.get("data"))
  if recorded is None or version is None:
    return None
  # Earlier versions have not recorded the content.
  return recorded == _digest(version) and environment.get("content", content) == content


def _digest(version: str | None) -> str | None:
  """Returns the digest in an `opening.Sources.version`, whatever the name of folder or file."""
  return version.rpartition(", sha256 ")[2] if version else None


def _of_run(
  network: Network, classes: labelled_images.Classes | None, split: str | None
) -> EvaluatedData:
  assert network.config is not None
  where = network.config.get("data_path")
  if where and not os.path.exists(paths.named(where)):
    raise errors.UserError(
      f"The run's images, {where}, don't exist (seen from {os.getcwd()}): give their place now "
      f"with --path."
    )
  found = _scan(network.config.get("dataset"), where)
  config, data = _opened(network, {}, found)
  if _unchanged(network, data) is False:
    raise errors.UserError(
      f"The images in {where} have changed since the run: files were added, removed, renamed or "
      f"edited, so that its parts are no longer the same. --path={where} evaluates them as they "
      f"are now."
    )
  return _part_of(classes, config, data, split, found)


def _of_config(
  network: Network,
  classes: labelled_images.Classes | None,
  request: run_config.Request,
  split: str | None,
  size: int | None,
) -> EvaluatedData:
  """Returns a part of the data set of a config, prepared as for the network."""
  known = network.folder or network.origin or network.released
  chosen = size or request.test_size or (network.size if known else None)
  request = request.copy_and_resolve_references()
  request.unlock()
  request.model, request.weights = network.model.architecture.name, "none"
  found = _scan(request.get("dataset"), request.get("data_path"))
  config, data = run_config.prepare(request, found)
  config = dataclasses.replace(config, test_size=chosen or config.test_size)
  part = _part_of(classes, config, data, split, found)
  place = part.images.resolve() if part.images else config.dataset
  return dataclasses.replace(part, label=f"{place}-{part.label}")


def _at_path(
  network: Network,
  classes: labelled_images.Classes | None,
  path: str,
  split: str | None,
  found: scan.Scan | None,
) -> EvaluatedData:
  if split not in (None, "test", "train", "val"):
    raise errors.UserError(f"--split={split} must be test, train or val for images at a path.")
  data = labelled_images.AtPath(path, split, classes, found)
  place = paths.named(path).resolve()
  return EvaluatedData(
    data=data,
    part="test",
    selection=datasets.Selection(network.size, network.size, on_bad_image="skip"),
    title=path if data.part is None else f"the {data.part} part of {path}",
    label=str(place) if data.part is None else f"{place}-{data.part}",
    batch_size=(network.config or {}).get("eval_batch_size", _BATCH_SIZE),
    images=paths.named(path),
  )


def _classes(network: Network) -> labelled_images.Classes:
  names = network.class_names
  return labelled_images.Classes(names, classes.other_names(names))


def _part_of(
  classes: labelled_images.Classes | None,
  config: run_config.RunConfig,
  data: opening.Opened,
  split: str | None,
  found: scan.Scan | None,
) -> EvaluatedData:
  """Returns a part of a data set.

  Args:
    classes: As in `labelled_images.AtPath`.
    config: The config of the data set, with the size of images for the network.
    data: The data set.
    split: The part, as in `choose`.
    found: The scan that the data set was opened with.

  Raises:
    UserError: There is no such part.
  """
  name, held_out = config.data_path or config.dataset, config.protocol == "select"
  label, part = split or "test", split or "test"
  if held_out and split in (None, "val"):
    label, part = "held-out", "test"
  elif held_out and split == "test":
    final = dataclasses.replace(config, protocol="final", keep_best=False, patience=None)
    data = run_config.prepare(final, found)[1]
  elif split == "val" and not data.spec.num_val:
    raise errors.UserError(
      f"{name} has no validation part that this config keeps apart from training and test images: "
      f"choose --split=test or --split=train."
    )
  elif split not in (None, "test", "train", "val"):
    data, part = data.evaluating(label), "test"
  return EvaluatedData(
    data=data if classes is None else labelled_images.OfDataSet(data, classes),
    part=part,
    selection=run_config.selection(config),
    title=f"the {label} part of {name}",
    label=label,
    batch_size=config.eval_batch_size,
    resident_share=config.resident_share,
    images=None if config.data_path is None else paths.named(config.data_path),
    scanned=found,
  )


def trained_on(network: Network, chosen: EvaluatedData) -> str | None:
  """Returns a warning if a run was trained on some of the images, unless they are that part.

  They are compared by their content where the run's own images are still what they were; else files
  at a path are compared by their place.
  """
  config, own = network.config, not isinstance(chosen.data, labelled_images.AtPath)
  if config is None or not config.get("data_path") or (own and chosen.part == "train"):
    return None
  sources = chosen.data.sources(test_only=chosen.part == "test")
  source = {"train": sources.train, "val": sources.val}.get(chosen.part, sources.test)
  assert source is not None
  common = _at_same_places(network, chosen.files)
  if isinstance(source, overlap.Comparable) and _comparable(config["data_path"], source):
    same = chosen.images is not None and chosen.images == paths.named(config["data_path"])
    trained = _training_images(network, chosen.scanned if same else None)
    if trained is not None:
      common = len(overlap.copies(overlap.Part(source, np.arange(len(source))), trained))
  if not common:
    return None
  return (
    f"This run was trained on {common:,} of the {phrases.counted(len(source), 'image')}: the "
    f"accuracy on them says nothing about new images."
  )


def _comparable(path: str, source: opening.Source) -> bool:
  """Returns whether images of a source may equal those at a path: both are files, or arrays."""
  return isinstance(source, folder.Files) == (datasets.kind_of(path) == "folder")


def _training_images(network: Network, found: scan.Scan | None) -> overlap.Part | None:
  """Returns the images that a run was trained on; None if they have changed, or are gone.

  Args:
    network: The run's.
    found: The scan of its folder or CSV; None: it is scanned here.
  """
  try:
    config, data = _opened(network, {}, found)
    if not _unchanged(network, data):
      return None
    selection = dataclasses.replace(run_config.selection(config), on_bad_image="stop")
    chosen = pipeline.choose_part(data, selection, "train")
  except errors.UserError:
    return None
  assert isinstance(chosen.whole, overlap.Comparable)
  return overlap.Part(chosen.whole, chosen.used)


def _at_same_places(network: Network, files: folder.Files | None) -> int:
  """Returns how many files are at the places of those that a run was trained on."""
  run, config = network.folder, network.config
  if files is None or run is None or config is None:
    return 0
  place = paths.named(config["data_path"])
  root = os.path.realpath(place if place.is_dir() else place.parent)
  try:
    split = run / run_folder.SPLIT
    with split.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
      rows = list(csv.DictReader(file))
    trained = {os.path.join(root, row["path"]) for row in rows if row["split"] == "train"}
  except (OSError, KeyError, csv.Error):  # an aid that a run can do without
    return 0
  here = os.path.realpath(files.root)
  return sum(os.path.join(here, path) in trained for path in files.paths)


def default_folder(network: Network, chosen: EvaluatedData) -> pathlib.Path:
  """Returns where the results go unless the user says; those of other images go elsewhere.

  That is RUN/evaluation-IMAGES, or ./evaluation/CHECKPOINT/IMAGES.
  """
  images = _word(chosen.label)
  if network.folder is not None:
    return network.folder / f"evaluation-{images}"
  file = paths.named(network.name)
  checkpoint = _word(str(file.resolve()) if file.exists() else network.name)
  return pathlib.Path("evaluation", checkpoint, images)


def _word(label: str) -> str:
  """Returns a name of a folder for a label; other than the label itself, it ends with a digest."""
  word = re.sub(r"[^\w.-]+", "-", pathlib.PurePath(label).name).strip("-.")[:_LONGEST_WORD]
  if word == label:
    return word
  return f"{word or 'images'}-{hashlib.sha256(os.fsencode(label)).hexdigest()[:8]}"


def require_folder(place: pathlib.Path, images: pathlib.Path | None) -> None:
  """Checks that results can be written to a folder, which needn't exist yet.

  Args:
    place: The folder.
    images: The folder or file of the evaluated images, in which results would be read as a class.

  Raises:
    UserError: It can't be written, or is inside the folder of images.
  """
  if images is not None and place.resolve().is_relative_to(images.resolve()):
    raise errors.UserError(
      f"The results would go to {place.resolve()}, inside the folder of images {images}: choose "
      f"another folder with --out=DIR."
    )
  files.require_folder(place, f"The folder {place}", _ELSEWHERE)


def open_folder(place: pathlib.Path) -> None:
  """Creates the folder for results, unless it exists.

  Raises:
    UserError: It can't be written.
  """
  files.open_folder(place, f"The folder {place}", _ELSEWHERE)
