"""Measures one part of a run of `bit_jax`: a worker, see `workers`.

Tasks are the reading of a checkpoint, the reading of a set of images, training steps, and the
evaluation of a set. `plain` reads images as google-research/big_transfer's input pipelines do: it
processes every image every time, in tf.data.
"""

import functools
import itertools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
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

_CHECKPOINT = ("load", "first load", "numpy.load")  # tasks
_WARM_UP = 0.1  # of the images of a repetition
_UNLIMITED = float("inf")  # memory

Spec = dict[str, Any]
Pass = Callable[[int], int]  # goes through some images, and returns how many


def build(spec: Spec) -> workers.Workload:
  """Returns the workload of a spec, warmed up; its items are images, or loaded checkpoints.

  Args:
    spec: 'task', one of `_CHECKPOINT` or a key of `_PASSES`. Of the former, 'checkpoint',
      'architecture' and 'num_classes'. Of the latter, 'images' of a repetition (or of a part of it,
      which is repeated for 'seconds'), 'batch', 'resize' and 'crop'; 'set' ('random', or a data
      set's name) with its 'path' or 'data_dir'; 'cache', a folder for decoded images; and the
      'architecture' of a task that trains or evaluates.
  """
  if spec["task"] in _CHECKPOINT:
    return _checkpoint(spec)
  if spec["task"] != "plain":  # whose threads have heaps of their own
    host.keep_freed_memory()  # as the training command does, before there are devices
  go_through, images = _PASSES[spec["task"]](spec), spec["images"]
  go_through(max(spec["batch"], int(_WARM_UP * images)))
  once = functools.partial(go_through, images)
  if "seconds" not in spec:
    return workers.Workload(once)
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
  if spec["set"] == "folder":
    files = tf.data.Dataset.list_files(f"{spec['path']}/train/*/*.jpg", shuffle=False)
    encoded = files.map(tf.io.read_file, tf.data.AUTOTUNE)
  else:
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    data = tfds.load(spec["set"], split="train", data_dir=spec["data_dir"], decoders=decoders)
    encoded = data.map(lambda example: example["image"])

  def preprocess(encoded: Any) -> Any:
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.image.resize(image, (resize, resize))
    image = tf.image.random_crop(image, (crop, crop, 3))
    image = tf.image.random_flip_left_right(image)
    return (image - 127.5) / 127.5

  def go_through(count: int) -> int:
    images = encoded.take(count).shuffle(count).map(preprocess, tf.data.AUTOTUNE)
    return sum(map(len, images.batch(spec["batch"]).prefetch(tf.data.AUTOTUNE)))

  return go_through


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
  config.update({**fields, "resize": spec["resize"], "crop": spec["crop"]})
  resolved, data = run_config.prepare(config)
  return pipeline.load(data, run_config.selection(resolved), memory).train


def _with_cache(part: pipeline.Part, folder: str) -> pipeline.Part:
  assert part.size is not None  # photographs are resized on the host
  shape = (part.size, part.size)
  cache = decoded.DecodedCache(part.source, shape, pathlib.Path(folder), len(part))
  return pipeline.Part(cache, part.size, part.class_names, None, None)


def _examples(part: pipeline.Part, spec: Spec) -> Callable[[int], Iterator[programs.Examples]]:
  """Returns a function that yields the examples of each step of a run of some images."""
  feed, batch = feeds.Feed(part), spec["batch"]
  layout = order.device_layout(batch, jax.device_count())

  def of_run(count: int) -> Iterator[programs.Examples]:
    fields = {"seed": 0, "batch_size": batch, "total_steps": -(-count // batch)}
    return feed.training(ml_collections.ConfigDict(fields), layout, 0)

  return of_run


def _positions(spec: Spec) -> Any:
  """Returns the positions of a device's examples in the batch, on the devices."""
  layout = order.device_layout(spec["batch"], jax.device_count())
  return parallel.send(layout.astype(np.int32))


def _one_ahead(step: Callable[[Any], Any], batches: Iterable[Any], size: int) -> int:
  """Calls a step for each batch, at most one ahead of the devices; returns the number of images."""
  before, done = None, 0
  for done, examples in enumerate(batches, 1):  # noqa: B007 (counts)
    result = step(examples)
    jax.block_until_ready(before)
    before = result
  jax.block_until_ready(before)
  return size * done


def _reading(part: pipeline.Part, spec: Spec) -> Pass:
  """Returns a pass that crops, flips and scales on the devices, as a step does."""
  examples, positions = _examples(part, spec), _positions(spec)
  augment = _augmentation(spec["resize"], spec["crop"])
  step = lambda batch: augment(batch.images, positions)  # noqa: E731
  return lambda count: _one_ahead(step, examples(count), spec["batch"])


@functools.cache  # each pass uses the same compiled program
def _augmentation(resize: int, crop: int) -> Callable[[Any, Any], jax.Array]:
  key, yes = jax.random.key(0), jnp.bool_(True)

  def augment(images: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augmentation.example_keys(key, jnp.int32(0), positions)
    switches = {"flip": yes, "random_crop": yes}
    return augmentation.augment(images, keys, resize=resize, crop=crop, **switches)

  return parallel.over_devices(augment, in_axes=(0, 0))


def _training(spec: Spec, *, one_batch: bool) -> Pass:
  """Training steps, on a resident set or repeatedly on one batch in the devices' memory."""
  examples, positions = _examples(_part(spec), spec), _positions(spec)
  model, params = _network(spec)
  resize, batch = spec["resize"], spec["batch"]
  task = memory.Task(model, resize, spec["crop"], (resize, resize), momentum=inputs.MOMENTUM)
  train = programs.train_function(task)
  lam, rate, yes = np.float32(1), np.float32(inputs.LEARNING_RATE), np.bool_(True)
  arguments = programs.StepArguments(jax.random.key(0), lam, rate, flip=yes, random_crop=yes)
  state = parallel.replicate(steps.create_state(params, optimizer.sgd(inputs.MOMENTUM)))
  first = next(examples(batch))

  def step(batch: programs.Examples) -> Any:
    nonlocal state
    state, metrics = train(state, batch, positions, arguments)
    return metrics

  def go_through(count: int) -> int:
    batches = itertools.repeat(first, -(-count // batch)) if one_batch else examples(count)
    return _one_ahead(step, batches, batch)

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


_PASSES: dict[str, Callable[[Spec], Pass]] = {
  "plain": _plain,
  "streamed": lambda spec: _reading(_part(spec, memory=0), spec),  # read when they are needed
  "caching": _caching,
  "cached": _cached,
  "resident": lambda spec: _reading(_part(spec), spec),  # decoded once, in the devices' memory
  "gathering": _gathering,
  "training": functools.partial(_training, one_batch=False),
  "training on one batch": functools.partial(_training, one_batch=True),
  "evaluation": _evaluation,
}

if __name__ == "__main__":
  workers.serve(build)
