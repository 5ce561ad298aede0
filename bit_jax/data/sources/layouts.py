"""The layout of a user's folder: which folders are parts, which are classes, what fits neither.

A class folder contains images. A folder with the name of a part is one only if the layout agrees:
it contains class folders, and there is another part next to it or its name has no other words. An
ambiguous layout is a fault. A layout other than `<part>/<class>/<image>` or `<class>/<image>` is
noted.
"""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from bit_jax.data.sources import part_names, scan, tree
from bit_jax.runtime import phrases

_SHOWN = 5  # classes whose subfolders are listed


class _Part(NamedTuple):
  """A folder that is read as a part.

  Attributes:
    folder: The folder.
    part: 'train', 'test' or 'val'.
    rest: The other words of its name (`part_names.Match`).
    inside: The folder with its classes: itself or one below it.
  """

  folder: tree.Folder
  part: str
  rest: tuple[str, ...]
  inside: tree.Folder

  @property
  def classes(self) -> frozenset[str]:
    """Names of the class folders with images."""
    return frozenset(f.name for f in self.inside.full)


@dataclasses.dataclass
class _Reading(scan.Scan):
  """The result so far.

  Attributes:
    classes: (class folder, its part), with images.
  """

  classes: list[tuple[tree.Folder, str]] = dataclasses.field(default_factory=list)


def read(root: pathlib.Path) -> scan.Scan:
  """Scans a folder of `<part>/<class>/*` or `<class>/*`.

  Raises:
    UserError: A folder can't be read.
  """
  top = tree.read(root)
  reading = _Reading(root)
  base = top
  while not (parts := _parts(base)) and (inner := _wrapped(base)):
    base = inner
  meant = part_names.settled(p.folder.name for p in parts)
  parts = [p._replace(part=meant[p.folder.name]) for p in parts]
  parts.sort(key=lambda p: ("train", "val", "test").index(p.part))
  if base is not top:
    reading.notes.append(
      f"Only the folder {base.path} is read: no other folder in {root} contains images."
    )
  if parts:
    _read_parts(reading, base, parts)
  else:
    _read_classes(reading, base)
  _look_below(reading)
  entries = [
    scan.Entry(path, folder.name, part)
    for folder, part in reading.classes
    for path in folder.all_images()
  ]
  reading.entries = [entries[i] for i in scan.by_digest(e.path for e in entries)]
  classified = {e.path for e in entries}
  reading.unclassified = [p for p in top.all_images() if p not in classified]
  reading.ignored = top.all_ignored()
  return reading


def _parts(base: tree.Folder) -> list[_Part]:
  """Returns the folders that are parts, or [] if the layout has none."""
  if len(base.full) == 1 and len({p.part for p in _parts(_end(base.full[0]))}) > 1:
    return []  # a folder around the parts, whatever its name
  named = [
    _Part(folder, *found, _inside(folder, found.part))
    for folder in base.folders
    if (found := part_names.match(folder.name))
  ]
  plain = [p for p in named if not p.rest]
  if any(p.classes or (not base.count and p.folder.folders) for p in plain):
    return plain + _agreeing(plain, [p for p in named if p.rest])
  groups = [[p for p in named if p.rest == rest] for rest in sorted({p.rest for p in named})]
  complete = [g for g in groups if len({p.part for p in g}) > 1 and any(p.classes for p in g)]
  if len(complete) == 1:
    return complete[0]
  trains = [p for p in named if p.part == "train" and p.classes]
  others = _agreeing(trains, named) if len(trains) == 1 and not complete else []
  return trains + others if others else []


def _agreeing(parts: list[_Part], candidates: list[_Part]) -> list[_Part]:
  """Returns the candidates for a missing part that have classes in common with the parts."""
  classes = frozenset[str]().union(*(p.classes for p in parts))
  present = {p.part for p in parts}
  return [p for p in candidates if p.part not in present and p.classes & classes]


def _inside(folder: tree.Folder, part: str) -> tree.Folder:
  """Descends through seg_train/seg_train, train/images and the like."""
  while not folder.images and len(folder.full) == 1:
    only = folder.full[0]
    found = part_names.match(only.name)
    doubled = only.name.lower() == folder.name.lower() or (
      found is not None and found.part == part and (not found.rest or not only.images)
    )
    if not (doubled or part_names.generic(only.name)):
      break
    folder = only
  return folder


def _wrapped(base: tree.Folder) -> tree.Folder | None:
  """Returns the only folder with images if it contains classes or parts and isn't a class."""
  if len(base.full) != 1 or any(not f.count and not f.all_ignored() for f in base.folders):
    return None  # an empty folder is an empty class
  inner = base.full[0]
  end = _end(inner)
  return inner if _parts(end) or (len(end.full) > 1 and not end.images) else None


def _read_parts(reading: _Reading, base: tree.Folder, parts: list[_Part]) -> None:
  root = reading.root / base.path
  for p in parts:
    _add_classes(reading, p.inside, p.part)
    if not p.folder.folders and not p.folder.images:
      reading.empty.append(p.folder.path)
  if flat := [p.folder.path for p in parts if p.inside.images and not p.inside.full]:
    reading.faults.append(_no_classes(reading.root, flat))
  for part in sorted({p.part for p in parts}):
    same = [p.folder.name for p in parts if p.part == part]
    if len(same) > 1:
      reading.faults.append(
        f"The folder {root} contains {' and '.join(same)}, names of the same part: keep one."
      )
  taken = {p.folder.path for p in parts}
  for beside in (f for f in base.full if f.path not in taken):
    _read_beside(reading, beside, parts)
  if any(
    p.folder is not p.inside or part_names.PARTS.get(p.folder.name.lower()) != p.part for p in parts
  ):
    read_as = ", ".join(f"{p.inside.path} as {p.part}" for p in parts)
    reading.notes.append(f"Folders read as parts: {read_as}.")


def _read_beside(reading: _Reading, beside: tree.Folder, parts: list[_Part]) -> None:
  """Adds a warning or a fault on a folder with images next to the parts."""
  found = part_names.match(beside.name)
  inside = _inside(beside, found.part if found else "")
  complete = len({p.part for p in parts}) > 1
  unlabelled = part_names.unlabelled(beside.name) or (found is not None and complete)
  count = phrases.counted(beside.count, "image")
  if unlabelled and not inside.full:
    reading.warnings.append(f"{beside.path} has {count} but no class folders: it is left out.")
  else:
    reading.faults.append(
      f"The folder {reading.root} contains parts ({', '.join(p.folder.path for p in parts)}) and "
      f"another folder, {beside.path}, with {count}: move it out, or rename the parts if they are "
      f"classes."
    )


def _read_classes(reading: _Reading, base: tree.Folder) -> None:
  root = reading.root / base.path
  _add_classes(reading, base, "")
  if not base.folders:
    reading.faults.append(
      f"The folder {root} has no class folders: put the images into one folder per class, "
      f"<class>/<image>, or list them in a CSV with the columns path and label."
    )
  if len(base.full) == 1 and base.full[0].images and len(base.full[0].full) > 1:
    only = base.full[0]
    reading.faults.append(
      f"All images in {root} are in {only.path}, which has images and folders "
      f"({phrases.some([f.name for f in only.full])}). If these folders are the classes, use "
      f"path={reading.root / only.path}."
    )
  like = [f for f in base.full if part_names.match(f.name)]
  if named := like if _several_parts(like) else list(filter(_is_called_part, base.full)):
    (reading.warnings if len(named) > 1 else reading.notes).append(
      f"Read as {'classes' if len(named) > 1 else 'a class'}, despite the name of a part: "
      f"{phrases.some([f.name for f in named])}."
    )


def _add_classes(reading: _Reading, base: tree.Folder, part: str) -> None:
  """Adds the folders in `base` as classes; images directly in it have no class."""
  reading.classes += [(folder, part) for folder in base.full]
  reading.empty += [folder.path for folder in base.folders if not folder.count]
  divided = [folder for folder in base.full if _divided(folder)]
  names = {folder.name for folder in base.full}
  for folder in divided:
    if len(again := [f.name for f in _end(folder).full if f.name in names]) > 1:
      reading.faults.append(
        f"In {reading.root}, {folder.path} is next to the classes and has folders of the same "
        f"names ({phrases.some(again)}): move it out, or rename these if they belong to a class."
      )
  sure = sum(map(_holds_images, base.full))  # beside many such, few may be divided
  if not divided or len(divided) < sure or any(map(_parts_below, divided)):
    return
  shown = [f.path for folder in divided for f in folder.all() if f.images]
  reading.faults.append(
    f"In {reading.root}, {phrases.some([f.path for f in divided])} "
    f"{'has' if len(divided) == 1 else 'have'} only folders ({phrases.some(shown)}) and can't be "
    f"read as {'a class' if len(divided) == 1 else 'classes'} or parts. Use the path of one data "
    f"set, such as path={reading.root / divided[0].path}, or put the images of a class directly "
    f"into <class>/ or <part>/<class>/, with parts such as train and test."
  )


def _end(folder: tree.Folder) -> tree.Folder:
  """Returns the first folder, downward from this one, with images or several folders."""
  while not folder.images and len(folder.full) == 1:
    folder = folder.full[0]
  return folder


def _divided(folder: tree.Folder) -> bool:
  """Whether a folder has several folders and no images, directly or in its only folder."""
  return not _end(folder).images


def _holds_images(folder: tree.Folder) -> bool:
  """Whether a folder has images, directly or as in n01443537/images."""
  end = _end(folder)
  return bool(end.images) and (end is folder or part_names.generic(end.name))


def _look_below(reading: _Reading) -> None:
  """Checks whether the class folders are parts or contain parts, and notes their subfolders."""
  folders = [folder for folder, _ in reading.classes]
  like = all(part_names.match(f.name) and not _divided(f) for f in folders)
  if folders and like and (_several_parts(folders) or all(map(_is_called_part, folders))):
    reading.faults.insert(0, _no_classes(reading.root, [f.path for f in folders]))
  if parted := sorted({path for folder in folders for path in _parts_below(folder)}):
    one = len(parted) == 1
    reading.faults.append(
      f"In {reading.root}, {phrases.some(parted)} {'is' if one else 'are'} inside a class folder, "
      f"but parts must be above the classes, <part>/<class>/<image>. Use the path of the folder "
      f"with the parts, or rename {'this folder' if one else 'these folders'}."
    )
  if not reading.faults:
    _note_subfolders(reading)


def _is_called_part(folder: tree.Folder) -> bool:
  return folder.name.lower() in part_names.PARTS


def _several_parts(folders: Iterable[tree.Folder]) -> bool:
  """Whether names mean train and another part, and their other words are the same."""
  found = [m for f in folders if (m := part_names.match(f.name))]
  trains = {m.rest for m in found if m.part == "train"}
  return any(m.rest in trains for m in found if m.part != "train")


def _parts_below(folder: tree.Folder) -> list[str]:
  """Returns the folders with images below a class folder that are named like parts."""
  paths = []
  for inner in folder.all():
    several = _several_parts(inner.full)
    paths += [
      f.path for f in inner.full if _is_called_part(f) or (several and part_names.match(f.name))
    ]
  return paths


def _note_subfolders(reading: _Reading) -> None:
  sentences, only = [], set()
  for folder, part in reading.classes:
    below = [f.path[len(folder.path) + 1 :] for f in folder.all() if f.images and f is not folder]
    only.add(below[0] if len(below) == 1 and not folder.images else None)
    if below:
      sentences.append(
        f"Class {folder.name} combines {phrases.counted(len(below), 'subfolder')}"
        f"{f' in {part}' if part else ''} ({phrases.some(below)})."
      )
  if len(only) == 1 and None not in only:
    reading.notes.append(f"The images of each class are in its subfolder {only.pop()}.")
  elif sentences:
    if (more := len(sentences) - _SHOWN) > 0:
      same = f"The same for {phrases.counted(more, 'more class', 'more classes')}."
      sentences[_SHOWN:] = [same]
    reading.warnings.append(" ".join(sentences))


def _no_classes(root: pathlib.Path, flat: list[str]) -> str:
  return (
    f"In {root}, {phrases.some(flat) if len(flat) > 2 else ' and '.join(flat)} "
    f"{'has' if len(flat) == 1 else 'have'} images but no class folders: sort the images into "
    f"<class>/<image> folders, or move the folder out if its images have no labels."
  )
