"""Measures one part of a run of `bit_jax`: a worker, see `workers`.

Tasks are the reading of a checkpoint, the reading of a set of images, training steps, and the
evaluation of a set. `plain` reads images as google-research/big_transfer's input pipelines do: it
processes every image every time, in tf.data.
"""

import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bit_jax import run_config, weights
from bit_jax.configs import base
from bit_jax.data import augmentation, decoded, order, pipeline, stream
from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import imports, parallel
from bit_jax.runtime import machine as host
from bit_jax.training import feeds, memory, optimizer, programs, steps
from experiments.benchmarks import inputs, machine, workers

_WARM_UP = 0.1  # of the images of a repetition
_UNLIMITED = float("inf")  # memory

Spec = dict[str, Any]
Pass = Callable[[int], int]  # goes through some images, and returns how many


def build(spec: Spec) -> workers.Workload:
  """Returns the workload of a spec, warmed up; its items are images, or loaded checkpoints.

  Args:
    spec: 'task', a key of `_CHECKPOINT` or `_PASSES`. Of the former, 'checkpoint', 'architecture'
      and 'num_classes'. Of the latter, 'images' of a repetition (or of a part of it, which is
      repeated for 'seconds'), 'batch', 'resize' and 'crop'; 'set' ('random', or a data set's name)
      with its 'path' or 'data_dir'; 'cache', a folder for decoded images; and the 'architecture'
      of a task that trains or evaluates.
  """
  if spec["task"] in _CHECKPOINT:
    return _checkpoint(spec)
  if spec["task"] != "plain":  # whose threads have heaps of their own
    host.keep_freed_memory()  # as the training command does, before there are devices
  go_through, images = _PASSES[spec["task"]](spec), spec["images"]
  go_through(max(spec["batch"], int(_WARM_UP * images)))
  if "seconds" not in spec:
    return workers.Workload(lambda: go_through(images))
  once = functools.partial(go_through, images)
  return workers.Workload(workers.repetition(once, lambda _: None, images, spec["seconds"]))


def _checkpoint(spec: Spec) -> workers.Workload:
  """Returns the reading of a checkpoint; its peak memory is that above the imports.

  'load' finds the file's hash below $BIT_JAX_CACHE, which must be the benchmark's own; 'first load'
  computes it every time.
  """
  path = pathlib.Path(spec["checkpoint"])
  architecture = architectures.find(spec["architecture"])

  def repeat() -> int:
    if spec["task"] == "numpy.load":
      with np.load(path) as file:
        assert all(file[name].size for name in file.files)
      return 1
    if spec["task"] == "first load":
      shutil.rmtree(pathlib.Path(os.environ["BIT_JAX_CACHE"]) / "sha256", ignore_errors=True)
    weights.load(path, architecture, head="keep", num_classes=spec["num_classes"])
    return 1

  machine.reset_peak_memory()
  before = machine.held_memory()
  repeat()  # reads the file into the page cache
  return workers.Workload(repeat, peak_memory=lambda: machine.peak_memory() - before)


def _plain(spec: Spec) -> Pass:
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

  def go_through(count: int) -> int:
    data = examples.take(count).shuffle(count)
    data = data.map(preprocess, tf.data.AUTOTUNE).batch(spec["batch"]).prefetch(tf.data.AUTOTUNE)
    return sum(len(labels) for _, labels in data)

  return go_through


def _encoded(spec: Spec) -> Any:
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


def _streamed(spec: Spec) -> Pass:
  """Images are read when they are needed."""
  return _reading(_part(spec, memory=0), spec)


def _caching(spec: Spec) -> Pass:
  """Images are read when they are needed, and written to a new cache of decoded images."""
  part = _part(spec, memory=0)

  def go_through(count: int) -> int:
    with tempfile.TemporaryDirectory(dir=spec["cache"]) as folder:
      return _reading(_with_cache(part, folder), spec)(count)

  return go_through


def _cached(spec: Spec) -> Pass:
  """Images are read from a complete cache of decoded images."""
  part = _with_cache(_part(spec, memory=0), f"{spec['cache']}/{spec['resize']}")
  for _ in stream.batches(part.source, [np.arange(len(part))], part.size):
    pass
  return _reading(part, spec)


def _resident(spec: Spec) -> Pass:
  """Images were decoded once, and are in the devices' memory."""
  return _reading(_part(spec), spec)


def _gathering(spec: Spec) -> Pass:
  """A set is decoded, and placed on the devices."""
  part = _part(spec, memory=0)

  def go_through(count: int) -> int:
    some = stream.Chosen(part.source, np.arange(min(count, len(part))))
    images, labels, _ = stream.gather(some, part.size, "Reading")
    programs.ResidentSet(images, labels)
    return len(some)

  return go_through


def _part(spec: Spec, memory: float = _UNLIMITED) -> pipeline.Part:
  """Returns the training part of a set, in memory if `memory` bytes are enough."""
  if spec["set"] == "random":
    shape = (spec["images"], spec["resize"], spec["resize"], 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    names = tuple(map(str, range(inputs.NUM_CLASSES)))
    examples = arrays.Examples(images, inputs.labels(len(images)), names)
    return pipeline.Part(examples, None, names, examples, examples.labels)
  config = base.get_config("model=R14x0.5,weights=none")
  fields = {"dataset": spec["set"], "data_path": spec["path"], "data_dir": spec["data_dir"]}
  config.update({**fields, **{name: spec[name] for name in ("resize", "crop")}})
  resolved, data = run_config.prepare(config)
  return pipeline.load(data, run_config.selection(resolved), memory).train


def _with_cache(part: pipeline.Part, folder: str) -> pipeline.Part:
  assert part.size is not None  # photographs are resized on the host
  shape = (part.size, part.size)
  cache = decoded.DecodedCache(part.source, shape, pathlib.Path(folder), len(part))
  return pipeline.Part(cache, part.size, part.class_names, None, None)


def _batches(feed: feeds.Feed, spec: Spec, count: int) -> Iterator[programs.Examples]:
  """Yields the examples of each step of a run of `count` images."""
  batch = spec["batch"]
  fields = {"seed": 0, "batch_size": batch, "total_steps": -(-count // batch)}
  return feed.training(ml_collections.ConfigDict(fields), _layout(spec), 0)


def _layout(spec: Spec) -> np.ndarray:
  return order.device_layout(spec["batch"], jax.device_count())


def _one_ahead(step: Callable[[Any], Any], batches: Iterator[Any]) -> int:
  """Calls a step for each batch, at most one ahead of the devices; returns the number of steps."""
  before, done = None, 0
  for done, examples in enumerate(batches, 1):  # noqa: B007 (counts)
    result = step(examples)
    jax.block_until_ready(before)
    before = result
  jax.block_until_ready(before)
  return done


def _reading(part: pipeline.Part, spec: Spec) -> Pass:
  """Returns a pass that crops, flips and scales on the devices, as a step does."""
  feed, positions = feeds.Feed(part), parallel.send(_layout(spec))
  augment = _augmentation(spec["resize"], spec["crop"])

  def go_through(count: int) -> int:
    batches = _batches(feed, spec, count)
    return spec["batch"] * _one_ahead(lambda examples: augment(examples, positions), batches)

  return go_through


@functools.cache  # each pass uses the same compiled program
def _augmentation(resize: int, crop: int) -> Callable[[programs.Examples, Any], jax.Array]:
  key = jax.random.key(0)

  def augment(examples: programs.Examples, positions: jax.Array) -> jax.Array:
    keys = augmentation.example_keys(key, jnp.int32(0), positions)
    yes = jnp.bool_(True)
    return augmentation.augment(
      examples.images, keys, resize=resize, crop=crop, flip=yes, random_crop=yes
    )

  return parallel.over_devices(augment, in_axes=(0, 0))


def _training(spec: Spec, *, one_batch: bool) -> Pass:
  """Training steps, on a resident set or repeatedly on one batch in the devices' memory."""
  feed = feeds.Feed(_part(spec))
  model, params = _network(spec)
  resize = spec["resize"]
  task = memory.Task(model, resize, spec["crop"], (resize, resize), momentum=inputs.MOMENTUM)
  train = programs.train_function(task)
  positions = parallel.send(_layout(spec).astype(np.int32))
  arguments = programs.StepArguments(
    key=jax.random.key(0),
    lam=np.float32(1),
    learning_rate=np.float32(inputs.LEARNING_RATE),
    flip=np.bool_(True),
    random_crop=np.bool_(True),
  )
  state = parallel.replicate(steps.create_state(params, optimizer.sgd(inputs.MOMENTUM)))
  first = next(_batches(feed, spec, spec["batch"]))

  def step(examples: programs.Examples) -> Any:
    nonlocal state
    state, metrics = train(state, examples, positions, arguments)
    return metrics

  def go_through(count: int) -> int:
    steps_due = -(-count // spec["batch"])
    batches = iter([first] * steps_due) if one_batch else _batches(feed, spec, count)
    return spec["batch"] * _one_ahead(step, batches)

  return go_through


def _evaluation(spec: Spec) -> Pass:
  """The evaluation of a whole set, which is in the devices' memory."""
  feed = feeds.Feed(_part(spec))
  model, params = _network(spec)
  variables = parallel.replicate(params)

  def go_through(_: int) -> int:
    feed.evaluate(model, spec["crop"], variables, spec["batch"])
    return len(feed.part)

  return go_through


def _network(spec: Spec) -> tuple[resnet_v2.ResNetV2, Any]:
  """Returns a network and its random parameters, on the host."""
  architecture = architectures.find(spec["architecture"])
  params = flax.traverse_util.unflatten_dict(dict(inputs.parameters(architecture)), sep="/")
  model = resnet_v2.ResNetV2(architecture, inputs.NUM_CLASSES, platform=jax.default_backend())
  return model, params


_CHECKPOINT = ("load", "first load", "numpy.load")
_PASSES: dict[str, Callable[[Spec], Pass]] = {
  "plain": _plain,
  "streamed": _streamed,
  "caching": _caching,
  "cached": _cached,
  "resident": _resident,
  "gathering": _gathering,
  "training": functools.partial(_training, one_batch=False),
  "training on one batch": functools.partial(_training, one_batch=True),
  "evaluation": _evaluation,
}

if __name__ == "__main__":
  workers.serve(build)
