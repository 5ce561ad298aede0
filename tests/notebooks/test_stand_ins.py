"""Drawn stand-ins for photographs are the same each time."""

import hashlib
import importlib.util

import numpy as np
import pytest
import running

from bit_jax.data import images


@pytest.fixture(scope="module")
def stand_ins():
  path = running.ROOT / "notebooks" / "stand_ins.py"
  spec = importlib.util.spec_from_file_location("stand_ins", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def digests(folder):
  files = sorted(folder.rglob("*.jpg"))
  return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_flowers(stand_ins, tmp_path, monkeypatch):
  monkeypatch.setattr(stand_ins, "_COUNTS", {"train": 3, "test": 1})
  folder = stand_ins.flowers(tmp_path / "flowers")
  found = digests(folder)
  assert len(found) == len(set(found.values())) == 5 * 4
  kinds = {path.split("/")[1] for path in found}
  assert kinds == {"daisy", "dandelion", "roses", "sunflowers", "tulips"}
  (folder / "test/roses/000.jpg").unlink()
  kept = (folder / "train/roses/000.jpg").stat().st_mtime_ns
  stand_ins.flowers(str(folder))
  assert digests(folder) == found  # the picture that was missing is drawn again
  assert (folder / "train/roses/000.jpg").stat().st_mtime_ns == kept


def test_some_cats_and_dogs_have_odd_sizes(stand_ins, tmp_path, monkeypatch):
  monkeypatch.setattr(stand_ins, "_COUNTS", {"train": 28})
  folder = stand_ins.cats_and_dogs(tmp_path)
  sizes = np.array([images.size(path) for path in sorted((folder / "train/cat").glob("*"))])
  short, long = sizes.min(axis=1), sizes.max(axis=1)
  assert np.flatnonzero((short < 32) | (long > 4 * short)).tolist() == [7, 27]
