"""Tests of bit_jax.data.sources.tfds_builders: slow, as they import TensorFlow."""

import pathlib

import pytest

from bit_jax.runtime import errors

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def builders():
  from bit_jax.data.sources import tfds_builders as module

  return module


def prepare(folder, name, version, size):
  """Writes a prepared set of `size` examples."""
  import tensorflow_datasets as tfds

  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=str(folder),
    features=tfds.features.FeaturesDict({"label": tfds.features.ClassLabel(num_classes=2)}),
    split_datasets={"train": [(i, {"label": i % 2}) for i in range(size)]},
  )


def test_the_current_version_is_that_of_the_installed_tfds(builders, tmp_path):
  for find in (builders.find_current, builders.find):
    builder = find("cifar10", str(tmp_path / "none"))
    assert builder.info.full_name == "cifar10/3.0.2"
    assert not builder.is_prepared()
    assert builder.data_dir == str(tmp_path / "none" / "cifar10" / "3.0.2")
  assert not (tmp_path / "none").exists()


def test_the_newest_prepared_version_is_found_where_the_current_is_not(builders, tmp_path):
  for version, size in (("1.9.0", 3), ("1.10.0", 4)):  # as numbers, not as text
    prepare(tmp_path, "cifar10", version, size)
  (tmp_path / "cifar10" / "notes").mkdir()
  (tmp_path / "cifar10" / "notes" / "dataset_info.json").write_text("{}")
  assert not builders.find_current("cifar10", str(tmp_path)).is_prepared()
  builder = builders.find("cifar10", str(tmp_path))
  assert (builder.name, str(builder.version)) == ("cifar10", "1.10.0")
  assert builder.info.splits["train"].num_examples == 4


def test_the_current_version_comes_before_a_newer_one(builders, tmp_path):
  for version, size in (("3.0.2", 3), ("9.0.0", 4)):
    prepare(tmp_path, "cifar10", version, size)
  assert str(builders.find("cifar10", str(tmp_path)).version) == "3.0.2"


def test_an_older_version_of_a_config_is_found(builders, tmp_path):
  prepare(tmp_path, "eurosat", "1.0.0", 3)
  (tmp_path / "eurosat" / "rgb").mkdir()
  (tmp_path / "eurosat" / "1.0.0").rename(tmp_path / "eurosat" / "rgb" / "1.0.0")
  builder = builders.find("eurosat/rgb", str(tmp_path))
  assert (str(builder.version), builder.is_prepared()) == ("1.0.0", True)
  assert pathlib.Path(builder.data_dir) == tmp_path / "eurosat" / "rgb" / "1.0.0"


@pytest.mark.parametrize(
  ("version", "damaged"),
  [("3.0.2", "dataset_info"), ("1.0.0", "dataset_info"), ("1.0.0", "features")],
)
@pytest.mark.parametrize("content", [b'{\n  "na', b"\xff\xfe"])
def test_a_damaged_description_is_told(builders, tmp_path, version, damaged, content):
  prepare(tmp_path, "cifar10", version, 3)
  (tmp_path / "cifar10" / version / f"{damaged}.json").write_bytes(content)
  with pytest.raises(errors.UserError, match=r"copy of cifar10 in .* is damaged") as caught:
    builders.find("cifar10", str(tmp_path))
  assert str(tmp_path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_missing_description_of_the_features_is_told(builders, tmp_path):
  prepare(tmp_path, "cifar10", "1.0.0", 3)
  (tmp_path / "cifar10" / "1.0.0" / "features.json").unlink()
  with pytest.raises(errors.UserError, match=r"copy of cifar10 in .* is damaged"):
    builders.find("cifar10", str(tmp_path))


def test_an_unknown_name_is_told(builders, tmp_path):
  with pytest.raises(errors.UserError, match="no data set 'cifar1000'"):
    builders.find("cifar1000", str(tmp_path))


def test_a_file_is_no_data_directory(builders, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match="is a file"):
    builders.find("cifar10", str(tmp_path / "file"))
  builders.require_folder(str(tmp_path / "absent"))
  builders.require_folder(None)


def test_a_data_directory_that_cannot_be_looked_into_is_told(builders, tmp_path, monkeypatch):
  def denied(*_):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "glob", denied)
  with pytest.raises(errors.UserError, match=rf"{tmp_path} can't be read \(Permission denied\)"):
    builders.find("cifar10", str(tmp_path))


def test_a_url_is_no_data_directory(builders, tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match=r"^gs://bucket/sets can't be used.*gcsfuse"):
    builders.find("cifar10", "gs://bucket/sets")
  for place in ("gs://bucket/sets", tmp_path.as_uri()):  # as $TFDS_DATA_DIR sets it
    monkeypatch.setattr(builders.tfds.core.constants, "DATA_DIR", place)
    if place.startswith("file"):
      assert pathlib.Path(builders.find("cifar10").data_dir).parents[1] == tmp_path
    else:
      with pytest.raises(errors.UserError, match=r"^gs://bucket/sets can't be used"):
        builders.find("cifar10")


def test_without_a_home_folder_there_is_no_place_for_sets(builders, no_home, monkeypatch):
  monkeypatch.setattr(builders.tfds.core.constants, "DATA_DIR", "~/tensorflow_datasets")
  assert not builders.has_folder(None)
  assert builders.has_folder("sets")
  monkeypatch.setenv("HOME", "/home/me")
  assert builders.has_folder(None)


def test_a_home_folder_is_understood(builders, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  builder = builders.find("cifar10", "~/sets")
  assert builder.data_dir == str(tmp_path / "sets" / "cifar10" / "3.0.2")
