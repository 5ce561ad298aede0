"""Reading and writing checkpoint files: values, strictness, damage, memory."""

import hashlib
import io
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import cache, errors
from bit_jax.weights import checkpoints

SMALL = architectures.find("R14x0.5")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))


def arrays(num_classes=10, architecture=SMALL, seed=0):
  """Returns {official key: float32 array} of a random checkpoint, small numbers around 1."""
  rng = np.random.default_rng(seed)
  shapes = architectures.parameter_shapes(architecture, num_classes)
  return {f"resnet/{k}": 1 + rng.standard_normal(s, np.float32) / 8 for k, s in shapes.items()}


def write(path, contents):
  np.savez(path, **contents)
  return path


def leaf(params, key):
  for part in key.removeprefix("resnet/").split("/"):
    params = params[part]
  return params


def load(path, head="keep", num_classes=10):
  return weights.load(path, SMALL, head=head, num_classes=num_classes)


def refused(path, match, **kwargs):
  with pytest.raises(errors.UserError, match=match) as e:
    load(path, **kwargs)
  return str(e.value)


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_loads_every_value(tmp_path, writer):
  contents = arrays()
  path = tmp_path / "a.npz"
  writer(path, **contents)
  loaded = load(path)
  for key, value in contents.items():
    np.testing.assert_array_equal(leaf(loaded.params, key), value)
    assert leaf(loaded.params, key).dtype == np.float32
  assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_zero_head_of_another_size(tmp_path):
  contents = arrays(21)
  loaded = load(write(tmp_path / "a.npz", contents), head="zero", num_classes=5)
  assert loaded.params["head"]["conv2d"]["kernel"].shape == (1, 1, 1024, 5)
  assert not loaded.params["head"]["conv2d"]["kernel"].any()
  assert loaded.params["head"]["conv2d"]["bias"].shape == (5,)
  key = "resnet/block4/unit01/b/standardized_conv2d/kernel"
  np.testing.assert_array_equal(leaf(loaded.params, key), contents[key])


def test_absent_head(tmp_path):
  path = write(tmp_path / "a.npz", arrays(None))
  assert not load(path, head="zero", num_classes=5).params["head"]["conv2d"]["kernel"].any()
  refused(path, "has no head, and 10 are needed: use head=zero")


def test_kept_head_of_another_size(tmp_path):
  refused(write(tmp_path / "a.npz", arrays(21)), "a head of 21 classes, and 10 .* use head=zero")


def test_released_key_variants(tmp_path):
  contents = arrays()
  variants = {}
  for i, (key, value) in enumerate(contents.items()):
    new = key.replace("/standardized_conv2d/", f"/standardized_conv2d_{i}/")
    new = new.replace(f"a/proj/standardized_conv2d_{i}/kernel", "a/proj/conv/w")
    variants[new.removeprefix("resnet/") if i % 2 else new] = value
  loaded = load(write(tmp_path / "a.npz", variants))
  for key, value in contents.items():
    np.testing.assert_array_equal(leaf(loaded.params, key), value)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_other_float_dtypes(tmp_path, dtype):
  contents = {k: v.astype(dtype) for k, v in arrays().items()}
  loaded = load(write(tmp_path / "a.npz", contents))
  for key, value in contents.items():
    assert leaf(loaded.params, key).dtype == np.float32
    np.testing.assert_array_equal(leaf(loaded.params, key), value.astype(np.float32))


def test_fortran_order(tmp_path):
  contents = {k: np.asfortranarray(v) for k, v in arrays().items()}
  loaded = load(write(tmp_path / "a.npz", contents))
  for key, value in contents.items():
    np.testing.assert_array_equal(leaf(loaded.params, key), value)


def test_all_wrong_keys_in_one_error(tmp_path):
  contents = arrays()
  del contents["resnet/group_norm/gamma"]
  del contents["resnet/block2/unit01/c/group_norm/beta"]
  contents["resnet/global_step"] = np.zeros((), np.int64)
  contents["resnet/head/conv2d/bias"] = np.zeros(11, np.float32)
  contents["resnet/root_block/standardized_conv2d_7/kernel"] = np.zeros((3, 3), np.float32)
  contents["resnet/group_norm/beta"] = np.zeros(1024, np.int32)
  message = refused(write(tmp_path / "a.npz", contents), "is not an R14x0.5 checkpoint")
  for part in (
    "missing resnet/block2/unit01/c/group_norm/beta, resnet/group_norm/gamma;",
    "unknown resnet/global_step;",
    "more than one array for the same parameter resnet/root_block/standardized_conv2d/kernel, "
    "resnet/root_block/standardized_conv2d_7/kernel;",
    "resnet/root_block/standardized_conv2d_7/kernel is float32 (3, 3) and not float (7, 7, 3, 32)",
    "resnet/head/conv2d/",
    "resnet/group_norm/beta is int32",
  ):
    assert part in message


def test_wrong_architecture_is_named(tmp_path):
  path = write(tmp_path / "a.npz", arrays(10, architectures.find("R14x1")))
  message = refused(path, "holds R14x1, not R14x0.5")
  assert len(message) < 300


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, -1])
def test_non_finite_numbers(tmp_path, bad, position):
  contents = arrays()
  key = "resnet/block4/unit01/b/standardized_conv2d/kernel"
  contents[key].flat[position] = bad
  refused(write(tmp_path / "a.npz", contents), f"{key} holds NaN")


def test_float64_beyond_float32(tmp_path):
  contents = arrays()
  contents["resnet/group_norm/beta"] = np.full(1024, 1e300)
  refused(write(tmp_path / "a.npz", contents), "holds NaN or infinite")


def test_pickled_objects_are_refused_unread(tmp_path):
  class Trap:
    def __reduce__(self):
      return (pathlib.Path.touch, (tmp_path / "ran",))

  contents = arrays() | {"resnet/group_norm/beta": np.array([Trap()], object)}
  refused(write(tmp_path / "a.npz", contents), "pickled Python objects")
  assert pickle.dumps(Trap())
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0.1, 0.9, 0.9999])
def test_truncated(tmp_path, keep):
  path = write(tmp_path / "a.npz", arrays())
  data = path.read_bytes()
  path.write_bytes(data[: int(keep * len(data))])
  refused(path, rf"a\.npz is truncated .*{path.stat().st_size:,} bytes")


@pytest.mark.parametrize("data", [b"", b"<html>Not found</html>" * 99])
def test_not_a_zip(tmp_path, data):
  path = tmp_path / "a.npz"
  path.write_bytes(data)
  refused(path, r"a\.npz is neither an \.npz nor a \.safetensors file: give the path")


def test_missing_file_and_folder(tmp_path):
  refused(tmp_path / "none.npz", "none.npz can't be read: No such file")
  refused(tmp_path, "can't be read: Is a directory")


def test_an_unreadable_header(tmp_path):
  data = write(tmp_path / "a.npz", arrays()).read_bytes()
  (tmp_path / "a.npz").write_bytes(data.replace(b"{'descr'", b"{'descr(", 1))
  refused(tmp_path / "a.npz", "is not a .npy array")


def test_foreign_member(tmp_path):
  path = write(tmp_path / "a.npz", arrays())
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("readme.txt", "hello")
  refused(path, "'readme.txt' is not a .npy array")


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
  return write(tmp_path_factory.mktemp("intact") / "a.npz", arrays()).read_bytes()


@pytest.mark.slow
@given(st.data())
@settings(max_examples=100)
def test_a_changed_byte_never_passes_silently(intact, data):
  with zipfile.ZipFile(io.BytesIO(intact)) as archive:
    starts = [m.header_offset for m in archive.infolist()]
  member_headers = st.builds(int.__add__, st.sampled_from(starts), st.integers(0, 250))
  structure = st.integers(len(intact) - 6000, len(intact) - 1) | member_headers
  position = data.draw(structure | st.integers(0, len(intact) - 1))
  changed = bytearray(intact)
  changed[position] ^= data.draw(st.integers(1, 255))
  path = pathlib.Path(cache.directory().parent, "changed.npz")
  path.write_bytes(changed)
  try:
    loaded = load(path)
  except errors.UserError:
    return
  for key, value in arrays().items():
    np.testing.assert_array_equal(leaf(loaded.params, key), value)


@given(st.integers(1, 50), st.integers(0, 9))
@settings(max_examples=10)
def test_saved_is_loaded(num_classes, seed):
  path = pathlib.Path(cache.directory().parent, "saved.npz")
  contents = arrays(num_classes, seed=seed)
  params = load(write(path, contents), num_classes=num_classes).params
  weights.save(path, params)
  with np.load(path) as saved:
    assert sorted(saved.files) == sorted(contents)
    for key, value in contents.items():
      np.testing.assert_array_equal(saved[key], value)
      assert saved[key].dtype == np.float32
  assert weights.infer(path) == ("R14x0.5", num_classes)


def test_saved_files_are_uncompressed_and_reproducible(tmp_path):
  params = load(write(tmp_path / "a.npz", arrays())).params
  weights.save(tmp_path / "new" / "b.npz", params)
  weights.save(tmp_path / "new" / "c.npz", params)
  assert (tmp_path / "new" / "b.npz").read_bytes() == (tmp_path / "new" / "c.npz").read_bytes()
  assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["b.npz", "c.npz"]
  with zipfile.ZipFile(tmp_path / "new" / "b.npz") as archive:
    assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED}


def test_float16_kernels(tmp_path):
  contents = {
    key: value.astype(np.float16) if "standardized_conv2d" in key else value
    for key, value in arrays().items()
  }
  loaded = load(write(tmp_path / "b.npz", contents)).params
  for key, value in contents.items():
    np.testing.assert_array_equal(leaf(loaded, key), value.astype(np.float32))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
  path = write(tmp_path / "a.npz", arrays())
  before = path.read_bytes()

  def fail(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", fail)
  with pytest.raises(errors.UserError, match=r"a\.npz can't be written: No space left"):
    weights.save(path, {"group_norm": {"beta": np.zeros(3)}})
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.glob("a.npz*")] == ["a.npz"]


def test_hash_is_remembered_and_forgotten_when_the_file_changes(tmp_path, monkeypatch):
  path = tmp_path / "a"
  path.write_bytes(b"one")
  first = cache.sha256(path)
  assert first == hashlib.sha256(b"one").hexdigest()
  with monkeypatch.context() as m:
    m.setattr(hashlib, "file_digest", None)  # a second reading would fail
    assert cache.sha256(path) == first
  other = tmp_path / "b"
  other.write_bytes(b"two")
  other.replace(path)
  assert cache.sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_hash_without_a_writable_cache(tmp_path, monkeypatch):
  (tmp_path / "file").write_bytes(b"")
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file" / "below"))
  (tmp_path / "a").write_bytes(b"one")
  assert cache.sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()


def test_hash_without_a_home_folder(tmp_path, no_home):
  (tmp_path / "a").write_bytes(b"one")
  for _ in range(2):
    assert cache.sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
  cache.remember("kind", "name", b"content")
  with pytest.raises(FileNotFoundError, match="No cache directory"):
    cache.recall("kind", "name")


def test_verify_reads_the_head_too(tmp_path):
  contents = arrays()
  assert len(checkpoints.verify(write(tmp_path / "a.npz", contents), "R14x0.5", 10)) == 64
  contents["resnet/head/conv2d/bias"][3] = np.nan
  with pytest.raises(errors.UserError, match="head/conv2d/bias holds NaN"):
    checkpoints.verify(write(tmp_path / "b.npz", contents), "R14x0.5", 10)


def test_no_jax_and_no_tensorflow():
  code = (
    "import sys, bit_jax.weights.__main__; "
    "sys.exit(any(m in sys.modules for m in ('jax', 'flax', 'tensorflow')))"
  )
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# VmHWM and not ru_maxrss, which a new process takes over from the one that started it.
PEAK = """
import os, re, sys
from bit_jax import weights
from bit_jax.models import architectures
def peak():
  with open("/proc/self/status") as status:
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])
before = peak()
weights.load(sys.argv[1], architectures.find("R50x1"), head="keep", num_classes=21843)
print((peak() - before) / os.path.getsize(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_peak_memory(shared, tmp_path):
  make = [sys.executable, shared / "golden" / "synth_npz.py", "BiT-M-R50x1", tmp_path / "a.npz"]
  subprocess.run([*make, "--numbered"], check=True, capture_output=True)
  run = subprocess.run(
    [sys.executable, "-c", PEAK, tmp_path / "a.npz"], check=True, capture_output=True, text=True
  )
  assert 0.9 < float(run.stdout) < 1.3
