"""One way to bring images to the network: a worker, see `workers`; an item is an image.

Every repetition of the reading tasks is a pass through a set from the beginning, until its last
batch is cropped, flipped and scaled. `plain` is written as google-research/big_transfer's input
pipelines are: everything to every image every time, in tf.data.
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bit_jax.data import augmentation, datasets, decoded, loading, opening, order, stream
from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import imports, machine, parallel
from bit_jax.training import feeds, optimizer, programs, steps
from experiments.benchmarks import inputs, workers

_WARM_UP = 0.1  # of the images of a repetition


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec, warmed up.

  Args:
    spec: 'task' (a key of `_TASKS`), 'set' (a name in `datasets.NAMES`), its 'path' or 'data_dir',
      'images' of a repetition, 'batch', 'resize' and 'crop'; 'cache', a folder for decoded images;
      'architecture' of a task that trains.
  """
  if spec["task"] != "plain":  # whose threads keep heaps of their own
    machine.keep_freed_memory()  # as the training command does, before there are devices
  passing = _TASKS[spec["task"]](spec)
  passing(max(spec["batch"], int(_WARM_UP * spec["images"])))
  return workers.Workload(lambda: passing(spec["images"]))


def _plain(spec: dict[str, Any]) -> Callable[[int], int]:
  """tf.data: decode, resize, random crop, flip, scale, batch, prefetch."""
  with imports.matplotlib_or_import_error():  # Keras imports it
    import tensorflow as tf

  resize, crop = spec["resize"], spec["crop"]

  def preprocess(encoded: Any, label: Any) -> tuple[Any, Any]:
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.image.resize(image, (resize, resize))
    image = tf.image.random_crop(image, (crop, crop, 3))
    image = tf.image.random_flip_left_right(image)
    return (image - 127.5) / 127.5, label

  examples = _encoded(spec)

  def passing(count: int) -> int:
    data = examples.take(count).shuffle(count)
    data = data.map(preprocess, tf.data.AUTOTUNE).batch(spec["batch"]).prefetch(tf.data.AUTOTUNE)
    return sum(len(labels) for _, labels in data)

  return passing


def _encoded(spec: dict[str, Any]) -> Any:
  """Returns a tf.data set of files' contents and labels."""
  import tensorflow as tf

  if spec["set"] == "folder":
    files = sorted(map(str, pathlib.Path(spec["path"], "train").rglob("*.jpg")))
    labels = [int(pathlib.Path(name).parent.name.removeprefix("class")) for name in files]
    data = tf.data.Dataset.from_tensor_slices((files, labels))
    return data.map(lambda name, label: (tf.io.read_file(name), label), tf.data.AUTOTUNE)
  import tensorflow_datasets as tfds

  return tfds.load(
    spec["set"],
    split="train",
    data_dir=spec["data_dir"],
    as_supervised=True,
    decoders={"image": tfds.decode.SkipDecoding()},
  )


def _streamed(spec: dict[str, Any]) -> Callable[[int], int]:
  """Images that are read as they are needed."""
  part = _part(spec)
  return _reading(feeds.Feed(part), spec)


def _caching(spec: dict[str, Any]) -> Callable[[int], int]:
  """The same, each written to a new cache of decoded images."""
  part = _part(spec)

  def passing(count: int) -> int:
    with tempfile.TemporaryDirectory(dir=spec["cache"]) as folder:
      return _reading(feeds.Feed(_behind_cache(part, spec, folder)), spec)(count)

  return passing


def _cached(spec: dict[str, Any]) -> Callable[[int], int]:
  """Images that come from a cache that is complete."""
  part = _behind_cache(_part(spec), spec, f"{spec['cache']}/{spec['resize']}")
  for _ in stream.batches(part.source, [np.arange(len(part))], part.size):
    pass
  return _reading(feeds.Feed(part), spec)


def _resident(spec: dict[str, Any]) -> Callable[[int], int]:
  """Images that were decoded once and lie on the devices."""
  return _reading(feeds.Feed(_in_memory(_part(spec))), spec)


def _gathering(spec: dict[str, Any]) -> Callable[[int], int]:
  """The reading of a set that is to lie on the devices."""
  part = _part(spec)

  def passing(count: int) -> int:
    some = part.source if count >= len(part) else stream.Chosen(part.source, np.arange(count))
    feeds.Feed(_in_memory(loading.Part(some, part.size, part.class_names, None, None)))
    return len(some)

  return passing


def _part(spec: dict[str, Any]) -> loading.Part:
  """Returns the training part of a set, to be streamed."""
  described = datasets.find(spec["set"], "final", spec["path"])
  source = opening.open_set(described, spec["data_dir"]).train
  size = None if described.fixed_size else spec["resize"]
  return loading.Part(source, size, source.class_names, None, None)


def _in_memory(part: loading.Part) -> loading.Part:
  if hasattr(part.source, "load"):
    examples = part.source.load(part.size)
  else:
    images, labels, _ = stream.gather(part.source, part.size, "Reading")
    examples = arrays.Examples(images, labels, part.class_names)
  return loading.Part(examples, part.size, part.class_names, examples, examples.labels)


def _behind_cache(part: loading.Part, spec: dict[str, Any], folder: str) -> loading.Part:
  shape = (spec["resize"], spec["resize"])
  cache = decoded.DecodedCache(part.source, shape, pathlib.Path(folder), len(part))
  return loading.Part(cache, part.size, part.class_names, None, None)


def _given(feed: feeds.Feed, spec: dict[str, Any], count: int) -> Iterator[programs.Examples]:
  """Yields the examples of each step, in the order of a run of so many images."""
  batch = spec["batch"]
  fields = {"seed": 0, "batch_size": batch, "total_steps": -(-count // batch)}
  config = ml_collections.ConfigDict(fields)
  return feed.training(config, order.device_layout(batch, jax.device_count()), 0)


def _reading(feed: feeds.Feed, spec: dict[str, Any]) -> Callable[[int], int]:
  """Returns a pass that crops, flips and scales on the device, as a step does."""
  positions = parallel.send(order.device_layout(spec["batch"], jax.device_count()))
  augment = _augmentation(spec["resize"], spec["crop"])

  def passing(count: int) -> int:
    before, done = None, 0
    for examples in _given(feed, spec, count):
      images = augment(examples, positions)
      jax.block_until_ready(before)  # one ahead, as in training
      before, done = images, done + spec["batch"]
    jax.block_until_ready(before)
    return done

  return passing


@functools.cache  # a pass that begins anew compiles nothing anew
def _augmentation(resize: int, crop: int) -> Callable[[programs.Examples, Any], jax.Array]:
  key = jax.random.key(0)

  @jax.pmap
  def augment(examples: programs.Examples, positions: jax.Array) -> jax.Array:
    keys = augmentation.example_keys(key, jnp.int32(0), positions)
    yes = jnp.bool_(True)
    return augmentation.augment(
      examples.images, keys, resize=resize, crop=crop, flip=yes, random_crop=yes
    )

  return augment


def _training(spec: dict[str, Any], fixed: bool) -> Callable[[int], int]:
  """Returns training steps on a resident set, or on one batch that lies on the devices."""
  feed = feeds.Feed(_in_memory(_part(spec)))
  model = resnet_v2.ResNetV2(
    architectures.find(spec["architecture"]), inputs.NUM_CLASSES, platform=jax.default_backend()
  )
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  params = jax.device_get(variables["params"])
  train = programs.train_function(model, inputs.MOMENTUM, spec["resize"], spec["crop"])
  layout = order.device_layout(spec["batch"], jax.device_count())
  positions = parallel.send(layout.astype(np.int32))
  arguments = programs.StepArguments(
    key=jax.random.key(0),
    lam=np.float32(1),
    learning_rate=np.float32(inputs.LEARNING_RATE),
    flip=np.bool_(True),
    random_crop=np.bool_(True),
  )
  state = parallel.replicate(steps.create_state(params, optimizer.sgd(inputs.MOMENTUM)))
  at_hand = next(_given(feed, spec, spec["batch"]))

  def passing(count: int) -> int:
    nonlocal state
    before, done = None, 0
    for given in (
      _given(feed, spec, count) if not fixed else [at_hand] * (-(-count // spec["batch"]))
    ):
      state, metrics = train(state, given, positions, arguments)
      jax.block_until_ready(before)
      before, done = metrics, done + spec["batch"]
    jax.block_until_ready(before)
    return done

  return passing


_TASKS: dict[str, Callable[[dict[str, Any]], Callable[[int], int]]] = {
  "plain": _plain,
  "streamed": _streamed,
  "caching": _caching,
  "cached": _cached,
  "resident": _resident,
  "gathering": _gathering,
  "training": functools.partial(_training, fixed=False),
  "training at hand": functools.partial(_training, fixed=True),
}


if __name__ == "__main__":
  workers.serve(build)
