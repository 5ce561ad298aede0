"""timm's `.safetensors` files: layout, values, strictness, damage, and files of our own."""

import hashlib
import json
import re

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import cache, errors
from bit_jax.weights import __main__ as command
from bit_jax.weights import checkpoints, classes, layouts, timm_config

SMALL = architectures.find("R14x0.5")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))


def timm_shapes(depths, width, num_classes):
  """Returns {key: shape} of timm's network, written down from its modules."""
  stem = int(64 * width)
  shapes = {"stem.conv.weight": (stem, 3, 7, 7)}
  channels = stem
  for s, depth in enumerate(depths):
    mid = stem * 2**s
    for b in range(depth):
      block = f"stages.{s}.blocks.{b}"
      if b == 0:
        shapes[f"{block}.downsample.conv.weight"] = (4 * mid, channels, 1, 1)
      for i, c in enumerate((channels, mid, mid), 1):
        shapes[f"{block}.norm{i}.weight"] = shapes[f"{block}.norm{i}.bias"] = (c,)
      shapes[f"{block}.conv1.weight"] = (mid, channels, 1, 1)
      shapes[f"{block}.conv2.weight"] = (mid, mid, 3, 3)
      shapes[f"{block}.conv3.weight"] = (4 * mid, mid, 1, 1)
      channels = 4 * mid
  shapes |= {"norm.weight": (channels,), "norm.bias": (channels,)}
  if num_classes:
    shapes |= {"head.fc.weight": (num_classes, channels, 1, 1), "head.fc.bias": (num_classes,)}
  return shapes


def arrays(num_classes=10, seed=0):
  rng = np.random.default_rng(seed)
  shapes = timm_shapes((1, 1, 1, 1), 0.5, num_classes)
  return {k: 1 + rng.standard_normal(s, np.float32) / 8 for k, s in shapes.items()}


def write(path, contents, **kwargs):
  safetensors.numpy.save_file(contents, path, **kwargs)
  return path


def load(path, head="keep", num_classes=10):
  return weights.load(path, SMALL, head=head, num_classes=num_classes)


def refused(path, match, **kwargs):
  with pytest.raises(errors.UserError, match=match) as e:
    load(path, **kwargs)
  return str(e.value)


def leaf(params, key):
  for part in key.split("/"):
    params = params[part]
  return params


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_key_and_shape_of_timm(name):
  architecture = architectures.find(name)
  ours = {
    layouts.TIMM.key(k): layouts.TIMM.shape_in_file(s)
    for k, s in architectures.parameter_shapes(architecture, 10).items()
  }
  assert ours == timm_shapes(architecture.depths, architecture.width, 10)


@pytest.mark.parametrize("layout", [layouts.TIMM, layouts.OFFICIAL])
def test_layouts_are_inverse(layout):
  kernel = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
  in_file = layout.to_file(kernel)
  assert in_file.shape == layout.shape_in_file(kernel.shape)
  assert layout.shape(in_file.shape) == kernel.shape
  np.testing.assert_array_equal(layout.from_file(in_file), kernel)
  for name in architectures.parameter_shapes(architectures.find("R152x4"), 1):
    assert layout.name(layout.key(name)) == name


def test_loads_every_value(tmp_path):
  contents = arrays()
  loaded = load(write(tmp_path / "a.safetensors", contents))
  assert loaded.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
  for key, name in {
    "stem.conv.weight": "root_block/standardized_conv2d/kernel",
    "stages.2.blocks.0.conv2.weight": "block3/unit01/b/standardized_conv2d/kernel",
    "stages.3.blocks.0.downsample.conv.weight": "block4/unit01/a/proj/standardized_conv2d/kernel",
    "head.fc.weight": "head/conv2d/kernel",
  }.items():
    found, expected = leaf(loaded.params, name), contents[key]
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    for o, i in ((0, 0), (3, 1), (-1, -1)):
      np.testing.assert_array_equal(found[:, :, i, o], expected[o, i])
  for key, name in {
    "stages.1.blocks.0.norm3.weight": "block2/unit01/c/group_norm/gamma",
    "stages.1.blocks.0.norm1.bias": "block2/unit01/a/group_norm/beta",
    "norm.weight": "group_norm/gamma",
    "head.fc.bias": "head/conv2d/bias",
  }.items():
    np.testing.assert_array_equal(leaf(loaded.params, name), contents[key])


def test_heads(tmp_path):
  path = write(tmp_path / "a.safetensors", arrays(21))
  new = load(path, head="zero", num_classes=5).params["head"]["conv2d"]
  assert (new["kernel"].shape, new["kernel"].any()) == ((1, 1, 1024, 5), False)
  refused(path, "a head of 21 classes, and 10 .* use head=zero")
  path = write(tmp_path / "b.safetensors", arrays(0))
  refused(path, "has no head, and 10 are needed")
  assert not load(path, head="zero", num_classes=5).params["head"]["conv2d"]["bias"].any()
  assert weights.infer(path) == ("R14x0.5", 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_dtypes(tmp_path, dtype):
  contents = {k: v.astype(dtype) for k, v in arrays().items()}
  loaded = load(write(tmp_path / "a.safetensors", contents))
  kernel = leaf(loaded.params, "root_block/standardized_conv2d/kernel")
  assert kernel.dtype == np.float32
  expected = contents["stem.conv.weight"].astype(np.float32).transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, expected)


def test_all_wrong_keys_in_one_error(tmp_path):
  contents = arrays()
  del contents["stages.1.blocks.0.norm3.bias"]
  contents["num_batches_tracked"] = np.zeros((), np.int64)
  contents["stem.conv.weight"] = np.zeros((32, 1, 7, 7), np.float32)
  contents["norm.bias"] = np.zeros(1024, np.int32)
  message = refused(write(tmp_path / "a.safetensors", contents), "is not an R14x0.5 checkpoint")
  for part in (
    "missing stages.1.blocks.0.norm3.bias;",
    "unknown num_batches_tracked;",
    "stem.conv.weight is float32 (32, 1, 7, 7) and not float (32, 3, 7, 7)",
    "norm.bias is int32 (1024,) and not float (1024,)",
  ):
    assert part in message


def test_wrong_architecture_is_named(tmp_path):
  shapes = timm_shapes((1, 1, 1, 1), 1, 10)
  contents = {k: np.zeros(s, np.float32) for k, s in shapes.items()}
  refused(write(tmp_path / "a.safetensors", contents), "holds R14x1, not R14x0.5")


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_non_finite_numbers(tmp_path, bad):
  contents = arrays()
  contents["stages.3.blocks.0.conv2.weight"][-1, -1, -1, -1] = bad
  path = write(tmp_path / "a.safetensors", contents)
  refused(path, "stages.3.blocks.0.conv2.weight holds NaN")
  with pytest.raises(errors.UserError, match="holds NaN"):
    checkpoints.verify(path, "R14x0.5", 10)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
  return write(tmp_path_factory.mktemp("intact") / "a.safetensors", arrays()).read_bytes()


@pytest.mark.parametrize(
  ("change", "why"),
  [
    (lambda data: data[:-1], "truncated or damaged .*not fully covered"),
    (lambda data: data + b"x", "truncated or damaged .*not fully covered"),
    (lambda data: data[:500], "truncated or damaged"),
    (lambda data: data[:8], "neither an .npz nor a .safetensors"),
    (lambda _: b"", "neither an .npz nor a .safetensors"),
    (lambda _: b"<html>not found</html>" * 99, "neither an .npz nor a .safetensors"),
    (lambda data: (1 << 62).to_bytes(8, "little") + data[8:], "damaged .*header too large"),
    (lambda data: (200 << 20).to_bytes(8, "little") + data[8:], "damaged .*header too large"),
    (lambda data: data.replace(b'"F32"', b'"F99"', 1), "damaged .*invalid JSON"),
    (lambda data: data.replace(b'"norm.bias"', b'"norm.weig"', 1), "unknown norm.weig"),
    (
      lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
      "a pointer of Git LFS and not the checkpoint: run `git lfs pull`",
    ),
  ],
)
def test_damage(tmp_path, intact, change, why):
  path = tmp_path / "a.safetensors"
  path.write_bytes(change(intact))
  message = refused(path, rf"a\.safetensors .*{why}")
  assert "\n" not in message


@given(st.data())
@settings(max_examples=30)
def test_a_changed_header_never_passes_silently(intact, data):
  size = 8 + int.from_bytes(intact[:8], "little")
  changed = bytearray(intact)
  changed[data.draw(st.integers(0, size - 1))] ^= data.draw(st.integers(1, 255))
  path = cache.directory().parent / "changed.safetensors"
  path.write_bytes(changed)
  try:
    loaded = load(path)
  except errors.UserError:
    return
  for key, value in arrays().items():
    found = leaf(loaded.params, layouts.TIMM.name(key))
    np.testing.assert_array_equal(found, layouts.TIMM.from_file(value))


def test_the_content_decides_on_the_format(tmp_path, intact):
  misnamed = tmp_path / "a.npz"
  misnamed.write_bytes(intact)
  params = load(misnamed).params
  weights.save(tmp_path / "b.npz", params)
  (tmp_path / "b.npz").rename(tmp_path / "b.safetensors")
  np.testing.assert_array_equal(
    load(tmp_path / "b.safetensors").params["group_norm"]["beta"], params["group_norm"]["beta"]
  )


def test_a_header_whose_length_reads_like_a_zip_file(tmp_path, intact):
  size = int.from_bytes(intact[:8], "little")
  header = intact[8 : 8 + size].rstrip().ljust(int.from_bytes(b"PK", "little"))
  path = tmp_path / "a.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + intact[8 + size :])
  assert path.read_bytes()[:2] == b"PK"
  assert weights.infer(path) == ("R14x0.5", 10)


def test_saved_as_the_library_reads_it(tmp_path, intact):
  (tmp_path / "a.safetensors").write_bytes(intact)
  params = load(tmp_path / "a.safetensors").params
  metadata = {classes.METADATA_KEY: json.dumps(["ä", "b"]), "licence": "none"}
  for name in ("b", "c"):
    weights.save(tmp_path / "new" / f"{name}.safetensors", params, metadata=metadata)
  first, second = (tmp_path / "new" / f"{name}.safetensors" for name in "bc")
  assert first.read_bytes() == second.read_bytes()
  with safetensors.safe_open(first, framework="numpy") as file:
    assert file.metadata() == {"format": "pt", **metadata}
  read = safetensors.numpy.load_file(first)
  expected = arrays()
  assert read.keys() == expected.keys()
  for key, value in expected.items():
    assert read[key].dtype == np.float32
    np.testing.assert_array_equal(read[key], value)
  assert int.from_bytes(first.read_bytes()[:8], "little") % 8 == 0


def test_a_failed_save_leaves_the_old_file(tmp_path):
  path = tmp_path / "a.safetensors"
  path.write_bytes(b"old")
  with pytest.raises(ValueError, match="could not convert"):
    weights.save(path, {"group_norm": {"beta": "text"}})
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match=r"b\.safetensors can't be written"):
    weights.save(tmp_path / "file" / "b.safetensors", {})
  assert path.read_bytes() == b"old"
  assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "file"]


def test_class_names_in_metadata(tmp_path):
  def names(text, num_classes=2, name="a.safetensors"):
    params = {"head": {"conv2d": {"bias": np.zeros(num_classes)}}}
    weights.save(tmp_path / name, params, metadata={classes.METADATA_KEY: text})
    return weights.class_names(tmp_path / name, num_classes)

  assert names('["cat", "große Katze"]') == ("cat", "große Katze")
  unnamed = ("class 0", "class 1")
  for text in ('["cat"]', '["cat", "cat"]', '["a", "b\\nc"]', "cat", '["a", 1]', "{}"):
    assert names(text) == unnamed
  own = json.dumps([f"own {i}" for i in range(1000)])
  known = "resnetv2_50x1_bit.goog_distilled_in1k.safetensors"
  assert names(own, 1000, known)[0] == "own 0"
  assert names("", 1000, known)[0] == "tench"


@pytest.mark.parametrize(
  ("config", "names", "size"),
  [
    ({"label_names": ["a", "b"], "pretrained_cfg": {"input_size": [3, 64, 64]}}, ("a", "b"), 64),
    ({"pretrained_cfg": {"label_names": ["a", "b"]}, "input_size": [3, 64, 32]}, ("a", "b"), None),
    ({"label_names": "ab", "input_size": "big"}, (), None),
    ({"label_names": [1, 2], "input_size": [3, 0, 0], "pretrained_cfg": 3}, (), None),
  ],
)
def test_the_config_of_timm(tmp_path, config, names, size):
  file = tmp_path / "model.safetensors"
  (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetv2_50x1_bit", **config}))
  assert timm_config.read(file) == timm_config.TimmConfig(names, size)
  weights.save(file, {"head": {"conv2d": {"bias": np.zeros(2)}}})
  assert weights.class_names(file, 2) == (names or ("class 0", "class 1"))


@pytest.mark.parametrize("text", ["", "[]", '{"model_type": "bit", "input_size": [3, 9, 9]}', "\0"])
def test_a_config_that_is_not_of_timm(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  assert timm_config.read(tmp_path / "model.safetensors") == timm_config.TimmConfig()


def test_commands(tmp_path, capsys):
  contents = arrays()
  contents["head.fc.bias"] = contents["head.fc.bias"].astype(ml_dtypes.bfloat16)
  path = write(tmp_path / "a.safetensors", contents)
  assert command.main(["verify", str(path)]) == 0
  assert "ok, R14x0.5, 10 classes, 2,017,578 parameters" in capsys.readouterr().out
  contents["norm.bias"][0] = np.nan
  contents["flags"] = np.zeros(2, bool)
  write(path, contents)
  assert command.main(["inspect", str(path)]) == 0
  out = capsys.readouterr().out
  assert "head.fc.bias" in out
  for line in ("norm.bias .*nan", "flags .* bool .*-", "bfloat16, bool, float32"):
    assert any(re.search(line, row) for row in out.splitlines()), line
