"""Folders and CSV files of small images for the tests of sources."""

from PIL import Image


def put(path, height=6, width=8, colour=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (width, height), (colour, 0, 0)).save(path)


def fill(root, counts, extension=".png"):
  """Writes {folder: number of images}; the red level is the number of the image."""
  for name, count in counts.items():
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      put(root / name / f"{i}{extension}", colour=i)
  return str(root)


def paths(listing):
  return set(listing.paths)


def names(described, listing):
  return [described.class_names[label] for label in listing.labels]


def write(tmp_path, text, name="list.csv", encoding="utf-8"):
  (tmp_path / name).write_text(text, encoding)
  return str(tmp_path / name)
