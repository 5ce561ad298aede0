"""CSV files that list a user's images."""

import functools
import pathlib
import random

import numpy as np
from PIL import Image

from bit_jax.data.sources import folder as folder_source
from bit_jax.runtime import errors
from experiments.reliability.fuzz import target

_CELLS = (
  *("a.png", "b.png", "sub/c.png", "../a.png", "/etc/passwd", "/dev/zero", "a", "cat", "dog", ""),
  *(
    "train",
    "test",
    "val",
    "Training",
    "1",
    "0",
    "NaN",
    "http://x/y.png",
    "~",
    "~\0x",
    "~nobody/a",
  ),
  *(
    "\0",
    "a\0.png",
    "9" * 5000,
    "x" * 200_000,
    "c:\\a.png",
    "a\nb",
    '"',
    "=cmd()",
    "\u202e",
    "猫",
    "a" * 300,
  ),
  *(",", ";", "\t", " a.png ", "'", "\ufeff", "\x85", "\u2028", "a.png/b.png", "..", "."),
)
_PATHS = ("a.png", "b.png", "sub/c.png", "d.png", "e.png", "f.png")
_HEADERS = (
  *("path", "label", "split", "file", "class", "image_id", "is_train", "", "set", "fold", "target"),
  *("path\0", "PATH", "labels", "x" * 1000, "valid"),
)


def lists() -> target.Target:
  """Returns CSV files, in a folder with images."""
  seeds = [
    b"path,label\na.png,cat\nb.png,dog\nsub/c.png,cat\n",
    b"path,label,split\na.png,cat,train\nb.png,dog,train\nsub/c.png,cat,test\n",
    b"sep=;\nfile;class;is_train\na.png;cat;1\nb.png;dog;1\nsub/c.png;cat;0\n",
    b"a.png,cat\nb.png,dog\nsub/c.png,dog\n",
    "path,label\na.png,cat\nb.png,dog\n".encode("utf-16"),
    b'\xef\xbb\xbf"path"\t"label"\r\n"a.png"\t"a ""b"""\r\n"b.png"\t"dog"\r\n',
  ]

  def build(rng: random.Random) -> bytes:
    delimiter, end = rng.choice(",;\t|,,"), rng.choice(("\n", "\r\n", "\r", "\n\n"))
    columns = rng.choice((1, *[2] * 10, *[3] * 8, 4, 200, 20_000))
    others = _CELLS if columns < 10 else ("train", "1", "")
    heads = ["path", "label", *(rng.choice(_HEADERS) for _ in range(columns))][:columns]
    if rng.random() < 0.2:
      rng.shuffle(heads)
    rows = [heads] * (rng.random() < 0.8)
    for path in _PATHS:
      row = [path, rng.choice(("cat", "dog")), rng.choice(("train", "test", "1"))]
      row += [rng.choice(others) for _ in range(columns - len(row))]
      if rng.random() < 0.06:
        row[rng.randrange(len(row))] = rng.choice(_CELLS)
      rows.append(row[: rng.choice((*[columns] * 20, columns + 1, 1))])
    quote = rng.choice(("", "", "", '"'))
    text = end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    encoding = rng.choice((*["utf-8"] * 8, "utf-8-sig", "utf-16", "utf-16-le", "latin-1"))
    return (text + end).encode(encoding, "replace")

  tokens = (b"\0", b'"', b",", b"\r", b"\n", b"../", b"~", b"\xff\xfe", b"sep=", b"\xe2\x80\xa8")
  return target.Target(seeds, build, _check, tokens)


@functools.cache
def _prepare(folder: pathlib.Path) -> None:
  """Writes the images."""
  (folder / "sub").mkdir()
  for name in _PATHS:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / name)


def _check(data: bytes, folder: pathlib.Path) -> bool:
  _prepare(folder)
  path = folder / "list.csv"
  path.write_bytes(data)
  try:
    described = folder_source.describe(str(path), "final")
  finally:
    assert len(list(folder.rglob("*"))) == 2 + len(_PATHS)  # nothing else was written
  for part in (described.train, described.test):
    for index in range(len(part)):
      try:
        image, label = part.read(index)
      except errors.UserError:
        continue
      assert image.ndim == 3
      assert 0 <= label < len(described.class_names)
  return True
