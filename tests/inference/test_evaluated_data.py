"""Where the results of an evaluation go."""

import types

import pytest

from bit_jax.inference import evaluated_data

LABELS = [
  *("test", "train", "val", "held-out", "train[:10%]", "train[10%:]", "vtab/svhn-test"),
  *("cifar10-test", "/a/batch.2024", "/a/batch.2025", "/b/batch.2024", "/a/batch 2024"),
  *(
    "/a/photos-test",
    "/a/photos-train",
    "/a/photos.csv",
    "/a/photos.npz",
    "/a/test",
    "/",
    "ü" * 99,
  ),
]


@pytest.mark.parametrize("folder", ["run", None])
def test_no_images_share_a_folder(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  root = None if folder is None else tmp_path / folder
  files = [tmp_path / name / "mine.npz" for name in "ab"]
  for file in files:
    file.parent.mkdir()
    file.touch()
  names = ["run"] if folder else ["BiT-M-R50x1", "BiT-S-R50x1", *map(str, files)]
  found = [
    evaluated_data.default_folder(
      types.SimpleNamespace(folder=root, name=name), types.SimpleNamespace(label=label)
    )
    for name in names
    for label in LABELS
  ]
  assert len(set(found)) == len(found) == len(names) * len(LABELS)
  for place in found:
    place.mkdir(parents=True)
  expected = root / "evaluation-test" if root else "evaluation/BiT-M-R50x1/test"
  assert str(found[0]) == str(expected)
  assert all(place.parent == root for place in found) or root is None
