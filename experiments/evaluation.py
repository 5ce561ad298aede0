"""A checkpoint's accuracy on a test set, without training, however its images are prepared.

Beside BiT's own way, straight to a square, there is that of the ImageNet tables that others keep:
the shorter side resized with the aspect ratio kept, then the centre.
"""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tqdm
from PIL import Image

from bit_jax import hyperrule, run_config
from bit_jax.configs import base
from bit_jax.data import datasets, loading, stream
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import clock, devices, errors, numerics, parallel
from bit_jax.training import feeds, memory, out_of_memory, planning

_EVERY = 60.0  # seconds between two lines of progress where there is no terminal
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclasses.dataclass(frozen=True)
class View:
  """How test images are prepared.

  Attributes:
    size: Side in pixels of the square that the network gets.
    shorter: Pixels that the shorter side is resized to, of which the centre is taken; None: images
      are resized straight to the square, as in BiT.
    interpolation: For the former, 'bilinear' or 'bicubic', antialiased; for the square it is
      bilinear without.
  """

  size: int
  shorter: int | None = None
  interpolation: str = "bilinear"

  def __post_init__(self) -> None:
    """Raises a `UserError` if there is no such view."""
    hyperrule.at_least("the test size", self.size, 1)
    hyperrule.one_of("interpolation", self.interpolation, tuple(_FILTERS))
    if self.shorter is not None:
      hyperrule.at_least("the shorter side", self.shorter, self.size)

  def __str__(self) -> str:
    """Returns what tables call it."""
    if self.shorter is None:
      return f"{self.size} square"
    return f"{self.size} of {self.shorter}, {self.interpolation}"


class Centres:
  """The centres of a source's images; a `stream.Source`.

  As torchvision's Resize and CenterCrop do on Pillow images: the longer side is rounded down,
  offsets to the nearest.
  """

  def __init__(self, source: stream.Source, view: View):
    """Takes the images, and a view with a shorter side."""
    assert view.shorter is not None
    self._source, self._size, self._shorter = source, view.size, view.shorter
    self._filter = _FILTERS[view.interpolation]

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image's centre, [size, size, 3] uint8, and its label."""
    pixels, label = self._source.read(index)
    image = Image.fromarray(pixels)
    least = min(image.size)
    width, height = (self._shorter * side // least for side in image.size)
    left, top = (round((side - self._size) / 2) for side in (width, height))
    resized = image.resize((width, height), self._filter)
    return np.asarray(resized.crop((left, top, left + self._size, top + self._size))), label


@dataclasses.dataclass(frozen=True)
class TestSet:
  """The test images of a data set, prepared in one way.

  Attributes:
    spec: The data set.
    part: The images.
    view: How they are prepared.
    image_size: (height, width) as the devices get them.
    version: What identifies the data.
    warnings: Sentences on why it isn't the set that it should be.
  """

  spec: datasets.DatasetSpec
  part: loading.Part
  view: View
  image_size: tuple[int, int]
  version: str
  warnings: tuple[str, ...]


def load(
  dataset: str, view: View, data_dir: str | None = None, *, decoded_cache: bool = False
) -> TestSet:
  """Opens the whole test split of a data set; nothing else of the set is read.

  Args:
    dataset: Its name, as in configs.
    view: How images are to be prepared.
    data_dir: Where tfds keeps prepared sets; None for its default.
    decoded_cache: Whether images resized to a square are kept in files, for another time.

  Raises:
    UserError: There is no such set, it isn't prepared or is faulty.
  """
  config = base.get_config("weights=none")
  config.dataset, config.data_dir = dataset, data_dir
  config.decoded_cache = decoded_cache and view.shorter is None  # it holds squares
  config.resize = config.crop = config.test_size = view.size
  config, spec = run_config.resolve(config)
  room = config.resident_share * devices.resident_memory(devices.describe())
  if view.shorter is None:
    loaded = loading.load_test(spec, config, room)
    part, image_size = loaded.part, loading.image_sizes(spec, config)[1]
  else:
    loaded = loading.load_test(spec, config, 0)
    part = dataclasses.replace(loaded.part, source=Centres(loaded.part.source, view), size=None)
    image_size = (view.size, view.size)
  return TestSet(spec, part, view, image_size, loaded.version, tuple(loaded.warnings))


@numerics.fixed()
def evaluate(
  params: Any,
  architecture: architectures.Architecture,
  tests: TestSet,
  *,
  batch_size: int = 256,
  dtype: Any = np.float32,
) -> dict[str, float]:
  """Scores every test image once, and shows progress.

  Args:
    params: Parameter tree on the host.
    architecture: The network.
    tests: What is scored.
    batch_size: Images at once over all devices; fewer if they don't fit.
    dtype: What convolutions compute in.

  Returns:
    'loss', 'top1' and, of many classes, 'top5'.

  Raises:
    UserError: The devices haven't the memory, or an image can't be read.
  """
  platform = devices.describe().platform
  model = resnet_v2.create(architecture.name, tests.spec.num_classes, dtype, platform)
  size = tests.view.size
  task = memory.Task(model, size, size, tests.image_size)
  try:
    feed, variables = feeds.Feed(tests.part), parallel.replicate(params)
    jax.block_until_ready(variables)  # it counts as memory in use
    hardware = devices.describe()
    budget = planning.budget(task, hardware)
    batch = planning.evaluation_batch(task, batch_size, len(tests.part), budget, hardware)
    name = f"{architecture.name} on {tests.spec.name} at {tests.view}"
    # float32 is to be float32: a GPU's default, TF32, is off by as much as what is looked for.
    exact = jax.default_matmul_precision("highest")
    with exact, _progress(name, len(tests.part)) as tell:
      return feed.evaluate(model, size, variables, batch, tell)[0]
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    if not out_of_memory.is_out_of_memory(e):
      raise
    raise errors.UserError(
      f"A device ran out of memory with {architecture.name} at {size} pixels: give a batch of "
      f"fewer images, or a device with more."
    ) from e


@contextlib.contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], object]]:
  """Shows how far an evaluation is: by a bar, or a line a minute where there is no terminal.

  Yields:
    A function to be called with the number of images that have just been sent.
  """
  if sys.stderr.isatty():
    with tqdm.tqdm(total=total, desc=name, unit=" images") as bar:
      yield bar.update
    return
  began = told = time.monotonic()
  done = 0

  def tell(count: int) -> None:
    nonlocal done, told
    done += count
    now = time.monotonic()
    if now - told > _EVERY:
      told = now
      left = clock.format_seconds((total - done) * (now - began) / done)
      print(f"{name}: {done:,} of {total:,} images, {left} left", file=sys.stderr, flush=True)

  yield tell


def crop_of(size: int, share: float, interpolation: str) -> View:
  """Returns the view of tables that state a size and the share of the shorter side that it is.

  Args:
    size: Side of the square in pixels.
    share: In (0, 1].
    interpolation: 'bilinear' or 'bicubic'.
  """
  return View(size, math.floor(size / share), interpolation)
