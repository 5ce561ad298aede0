"""Prepared copies of the tfds sets of VTAB-1k, generated: real features, made-up examples.

A copy has the splits that a task's expressions name, with their real absolute positions, such as
those of dSprites' `train[:589824]`. Its shards begin and end where these expressions do, and only
those that are read exist; test sets are cut to a few images.
"""

import functools
import io
import re
import zlib

import numpy as np
from PIL import Image

from bit_jax.data import vtab

NUM_TEST = 12
_HALF = 212  # of smallNORB's test split, whose halves are validation and test
_PICTURES = 8
# On, just above and between the thresholds of the tasks; float32 holds them exactly.
CLEVR_DEPTHS = (7.0, 8.0, 8.125, 8.5, 8.75, 9.0, 9.25, 9.5, 9.75, 10.0, 10.5, 13.0)
KITTI_DEPTHS = (2.5, 8.0, 8.125, 15.0, 20.0, 20.125, 60.0)
_EXPRESSION = re.compile(r"(\w+)(?:\[(\d+%?)?:(\d+)?(%)?\])?")


def prepare(tfds_name, data_dir, splits=None):
  """Writes the copy of a builder; with its config where it has several.

  `splits` is {split: [(start, stop, whether it is read)]}; None: what the tasks of VTAB-1k read.
  """
  from bit_jax.data.sources import tfds_builders

  tfds = tfds_builders.tfds
  builder = tfds_builders.find_current(tfds_name, str(data_dir))
  builder.data_path.mkdir(parents=True)
  infos = []
  for split, parts in (splits or _parts(tfds_name)).items():
    template = tfds.core.ShardedFileTemplate(
      split=split, dataset_name=builder.name, data_dir=builder.data_path, filetype_suffix="tfrecord"
    )
    lengths = [stop - start for start, stop, _ in parts]
    infos.append(tfds.core.SplitInfo(split, lengths, 0, template))
    for number, (start, stop, is_read) in enumerate(parts):
      if is_read:
        path = template.sharded_filepath(shard_index=number, num_shards=len(parts))
        _write(str(path), builder, tfds_name, split, range(start, stop))
  builder.info.set_splits(tfds.core.SplitDict(infos))
  builder.info.write_to_directory(builder.data_path)


def example(builder, tfds_name, split, position):
  """Returns an example as numbers and arrays, the same every time; `image` as it is decoded."""
  seed = zlib.crc32(f"{tfds_name}/{split}/{position}".encode())
  random = np.random.default_rng(seed)
  features = builder.info.features
  found = {name: _value(feature, random, seed % _PICTURES) for name, feature in features.items()}
  if tfds_name == "clevr":
    found["objects"] = _clevr_objects(features["objects"], random, position)
  if tfds_name == "kitti":
    found["objects"] = _kitti_objects(features["objects"], random, position)
  if tfds_name == "dsprites":
    found["image"] = found["image"] % 2
  return found


def positions(tfds_name, expression):
  """Returns [(split, position)] of the examples of an expression such as 'train[:800]+test'."""
  found = []
  for part in expression.split("+"):
    split, start, stop = _interval(part, tfds_name)
    found += [(split, position) for position in range(start, stop)]
  return found


def _interval(part, tfds_name):
  split, start, stop, percent = _EXPRESSION.fullmatch(part).groups()
  if start == "50%":
    return split, _HALF, 2 * _HALF
  assert not percent
  first = int(start or 0)
  return split, first, int(stop) if stop else first + NUM_TEST


def _parts(tfds_name):
  """Returns {split: [(start, stop, whether it is read)]}, end to end."""
  read = {}
  for task in map(vtab.find, vtab.TASKS):
    if task.tfds_name == tfds_name:
      for whole in (task.splits.train800, task.splits.val200, task.splits.test):
        split, start, stop = _interval(whole, tfds_name)
        read.setdefault(split, set()).add((start, stop))
  return {split: list(_end_to_end(sorted(intervals))) for split, intervals in read.items()}


def _end_to_end(intervals):
  end = 0
  for start, stop in intervals:
    if start > end:
      yield end, start, False
    middle = start + (stop - start) * 5 // 8  # 500 of 800: an interval of several shards
    yield start, middle, True
    yield middle, stop, True
    end = stop


def _write(path, builder, tfds_name, split, numbers):
  from bit_jax.data.sources.tfds_builders import tf

  features = builder.info.features
  with tf.io.TFRecordWriter(path) as writer:
    for number in numbers:
      found = example(builder, tfds_name, split, number)
      for name, feature in features.items():
        if isinstance(found[name], np.ndarray) and found[name].ndim == 3:
          found[name] = io.BytesIO(_encoded(found[name].tobytes(), found[name].shape, feature))
      writer.write(features.serialize_example(found))


@functools.lru_cache(maxsize=64)
def _encoded(pixels, shape, feature):
  image = np.frombuffer(pixels, np.uint8).reshape(shape)
  file = io.BytesIO()
  grey = image[..., 0] if shape[2] == 1 else image
  Image.fromarray(grey).save(file, feature.encoding_format or "png", quality=95)  # PNG ignores it
  return file.getvalue()


def _value(feature, random, picture):
  from bit_jax.data.sources.tfds_builders import tfds

  kinds = tfds.features
  if isinstance(feature, kinds.Image):
    height, width, channels = feature.shape
    return _picture(height or 20 + 3 * picture, width or 50 - 2 * picture, channels, picture)
  if isinstance(feature, kinds.ClassLabel):
    return int(random.integers(feature.num_classes))
  if isinstance(feature, kinds.Text):
    return f"text {random.integers(1_000)}"
  if isinstance(feature, kinds.BBoxFeature):
    return kinds.BBox(0.125, 0.25, 0.5, 0.75)
  if isinstance(feature, kinds.Sequence):
    return _sequence(feature, random, int(random.integers(4)))
  return random.random(feature.shape).astype(feature.np_dtype)


def _sequence(feature, random, length):
  return [
    {name: _value(inner, random, 0) for name, inner in feature.feature.items()}
    for _ in range(length)
  ]


def _picture(height, width, channels, number):
  """Returns a ramp from left to right, uint8, which JPEG keeps within a few grey levels."""
  ramp = 10 * number + np.linspace(0, 150, width)[:, None] + 10 * np.arange(channels)
  return np.broadcast_to(ramp.astype(np.uint8), (height, width, channels))


def _clevr_objects(feature, random, position):
  """Returns 3 to 10 objects, the nearest at one of `CLEVR_DEPTHS`."""
  objects = _sequence(feature, random, 3 + position % 8)
  nearest = CLEVR_DEPTHS[position % len(CLEVR_DEPTHS)]
  for number, item in enumerate(objects):
    away = 0 if number == position % 3 else random.random() * 4
    item["pixel_coords"] = np.array([100.0, 100.0, nearest + away], np.float32)
  return objects


def _kitti_objects(feature, random, position):
  """Returns up to 5 objects; in a third of the images none is a vehicle."""
  objects = _sequence(feature, random, position % 6)
  for item in objects:
    item["type"] = int(random.integers(3, 8) if position % 3 == 0 else random.integers(8))
    item["location"] = np.array([1.0, 2.0, random.choice(KITTI_DEPTHS)], np.float32)
  return objects
