"""Measures one part of a run of `bit_jax`: a worker, see `workers`.

Tasks are the reading of a checkpoint, the reading of a set of images, training steps, and the
evaluation of a set. `plain` reads images as google-research/big_transfer's input pipelines do: it
processes every image every time, in tf.data.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import shutil
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
from bit_jax.inference import evaluated_data, evaluation, feeds, networks, outputs, predictions
from bit_jax.inference import inputs as image_files
from bit_jax.inference.programs import Examples, ResidentSet
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import imports, parallel
from bit_jax.runtime import machine as host
from bit_jax.training import batches, memory, optimizer, programs, steps
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


def _cached(spec: Spec) -> Pass:
  """Images are read from a complete cache of decoded images."""
  part, size = _part(spec, memory=0), spec["resize"]
  folder = pathlib.Path(spec["cache"], str(size))
  cache = decoded.DecodedCache(part.source, (size, size), folder, len(part))
  for _ in stream.batches(cache, [np.arange(len(part))], size):
    pass
  return _reading(dataclasses.replace(part, source=cache), spec)


def _gathering(spec: Spec) -> Pass:
  """A set is decoded, and placed on the devices."""
  part = _part(spec, memory=0)

  def go_through(count: int) -> int:
    some = stream.Chosen(part.source, np.arange(min(count, len(part))))
    images, labels, _ = stream.gather(some, part.size, "Reading")
    ResidentSet(images, labels)
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


def _steps(part: pipeline.Part, spec: Spec, step: Callable[[Examples, jax.Array], Any]) -> Pass:
  """Returns a pass of steps on a part of a set, at most one ahead of the devices.

  Args:
    part: The part.
    spec: See `build`.
    step: Takes a batch and the positions of each device's examples in it, on the devices.
  """
  feed, batch_size = feeds.Feed(part), spec["batch"]
  layout = order.device_layout(batch_size, jax.device_count())
  positions = parallel.send(layout.astype(np.int32))

  def examples(steps: int) -> Iterator[Examples]:
    fields = {"seed": 0, "batch_size": batch_size, "total_steps": steps}
    return batches.of_steps(feed, ml_collections.ConfigDict(fields), layout, 0)

  first = next(examples(1)) if spec["task"] == "training on one batch" else None

  def go_through(count: int) -> int:
    before, steps = None, -(-count // batch_size)
    for batch in itertools.repeat(first, steps) if first else examples(steps):
      result = step(batch, positions)
      jax.block_until_ready(before)
      before = result
    jax.block_until_ready(before)
    return steps * batch_size

  return go_through


def _reading(part: pipeline.Part, spec: Spec) -> Pass:
  """Returns a pass that crops, flips and scales on the devices, as a step does."""
  key, yes = jax.random.key(0), jnp.bool_(True)
  how = {"resize": spec["resize"], "crop": spec["crop"], "flip": yes, "random_crop": yes}

  @functools.partial(parallel.over_devices, in_axes=(0, 0))
  def augment(images: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augmentation.example_keys(key, jnp.int32(0), positions)
    return augmentation.augment(images, keys, **how)

  return _steps(part, spec, lambda batch, positions: augment(batch.images, positions))


def _training(spec: Spec) -> Pass:
  """Training steps, on a resident set or repeatedly on one batch in the devices' memory."""
  resize, (model, params) = spec["resize"], _network(spec)
  task = memory.Task(model, resize, spec["crop"], (resize, resize), momentum=inputs.MOMENTUM)
  train = programs.train_function(task)
  lam, rate, yes = np.float32(1), np.float32(inputs.LEARNING_RATE), np.bool_(True)
  arguments = programs.StepArguments(jax.random.key(0), lam, rate, flip=yes, random_crop=yes)
  state = parallel.replicate(steps.create_state(params, optimizer.sgd(inputs.MOMENTUM)))

  def step(batch: Examples, positions: jax.Array) -> Any:
    nonlocal state
    state, metrics = train(state, batch, positions, arguments)
    return metrics

  return _steps(_part(spec), spec, step)


def _evaluation(spec: Spec) -> Pass:
  """The evaluation of a whole set, which is in the devices' memory."""
  feed = feeds.Feed(_part(spec))
  model, params = _network(spec)
  variables = parallel.replicate(params)

  def go_through(_: int) -> int:
    evaluation.evaluate(feed, model, spec["crop"], variables, spec["batch"])
    return len(feed.part)

  return go_through


def _predicting(spec: Spec) -> Pass:
  """Images are classified as `python -m bit_jax.predict` does, from their files."""
  forward = outputs.Forward(_classifier(spec), spec["batch"])

  def go_through(_: int) -> int:
    files = image_files.find([f"{spec['path']}/train"]).files
    return sum(1 for _ in predictions.predict(forward, files, count=5))

  return go_through


def _evaluating(spec: Spec) -> Pass:
  """Images are evaluated as `python -m bit_jax.evaluate --path` does, from their files."""
  network = _classifier(spec)

  def go_through(_: int) -> int:
    loaded = evaluated_data.choose(network, path=spec["path"], split="train").load()[0]
    evaluation.evaluate_part(network.model, network.params, network.size, loaded, spec["batch"])
    return len(loaded.part)

  return go_through


def _classifier(spec: Spec) -> networks.Network:
  """Returns a network for the classes of `inputs.write_photographs`, as commands take it."""
  model, params = _network(spec)
  names = tuple(f"class{i}" for i in range(inputs.NUM_CLASSES))
  file = pathlib.Path("random numbers")
  return networks.Network("random", model, params, names, spec["crop"], file, sha256="")


def _network(spec: Spec) -> tuple[resnet_v2.ResNetV2, Any]:
  """Returns a network and its random parameters, on the host."""
  architecture = architectures.find(spec["architecture"])
  params = flax.traverse_util.unflatten_dict(dict(inputs.parameters(architecture)), sep="/")
  model = resnet_v2.ResNetV2(architecture, inputs.NUM_CLASSES, platform=jax.default_backend())
  return model, params


_PASSES: dict[str, Callable[[Spec], Pass]] = {
  "plain": _plain,
  "streamed": lambda spec: _reading(_part(spec, memory=0), spec),  # read when they are needed
  "cached": _cached,
  "resident": lambda spec: _reading(_part(spec), spec),  # decoded once, in the devices' memory
  "gathering": _gathering,
  "training": _training,
  "training on one batch": _training,
  "evaluation": _evaluation,
  "predicting": _predicting,
  "evaluating": _evaluating,
}

if __name__ == "__main__":
  workers.serve(build)
