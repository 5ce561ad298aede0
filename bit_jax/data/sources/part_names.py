"""Names of the parts of a data set: 'Training', 'seg_test', 'val2017', 'trainset'."""

import re
from collections.abc import Iterable
from typing import NamedTuple

PARTS = {
  "train": "train",
  "training": "train",
  "trainval": "train",
  "test": "test",
  "testing": "test",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "dev": "val",
  "eval": "val",
  "evaluation": "val",
}

# Words without a meaning of their own: training_set, test-images, valDataset.
_GENERIC = frozenset(
  {"set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "jpg", "jpegs"}
  | {"jpeg", "jpegimages", "png", "pngs", "picture", "pictures", "photo", "photos", "pics", "file"}
  | {"files", "folder", "folders", "dir", "directory", "split"}
)
_GLUED = re.compile(rf"({'|'.join(sorted(PARTS, key=len, reverse=True))})({'|'.join(_GENERIC)})")
_UNLABELLED = frozenset(
  {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "inference"}
  | {"submission"}
)


class Match(NamedTuple):
  """A name that may mean a part.

  Attributes:
    part: 'train', 'test' or 'val'.
    rest: The other words of the name, without digits and generic words: () of 'test_images', and
      ('seg',) of 'seg_train'. Only names of one rest are sure to be parts of one data set.
  """

  part: str
  rest: tuple[str, ...]


def match(name: str) -> Match | None:
  """Returns the part that a name may mean, even 'bullet_train', or None."""
  parts, rest = set(), []
  for word in _words(name):
    glued = _GLUED.fullmatch(word)
    if part := PARTS.get(glued[1] if glued else word):
      parts.add(part)
    elif word not in _GENERIC:
      rest.append(word)
  if len(parts) == 2 and "val" in parts:  # train_val is a train part, test-dev is not
    parts.remove("val")
  return Match(parts.pop(), tuple(rest)) if len(parts) == 1 else None


def plain(name: str) -> str | None:
  """Returns the part that a name means if it has no other words: 'Training', 'test_images'."""
  found = match(name)
  return found.part if found and not found.rest else None


def settled(names: Iterable[str]) -> dict[str, str]:
  """Returns {name: part} of the names that mean a part, read together.

  Next to train and val, and without test, eval is the test set; elsewhere it means val.
  """
  parts = {name: found.part for name in names if (found := match(name))}
  evals = {name for name in parts if any(word.startswith("eval") for word in _words(name))}
  if "test" not in parts.values() and any(parts[n] == "val" for n in parts if n not in evals):
    parts.update(dict.fromkeys(evals, "test"))
  return parts


def generic(name: str) -> bool:
  """Returns whether a name only says images or data: 'images', 'JPEGImages', 'data'."""
  words = _words(name)
  return bool(words) and _GENERIC.issuperset(words)


def unlabelled(name: str) -> bool:
  """Returns whether a name says that the images have no labels: 'seg_pred', 'unlabeled'."""
  return not _UNLABELLED.isdisjoint(_words(name))


def _words(name: str) -> list[str]:
  """Returns the lower-case words of a name without digits: ['train', 'set'] of 'trainSet_2'."""
  return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
