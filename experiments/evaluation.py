"""Accuracy of a checkpoint on a test set, for several ways of preparing the images.

BiT resizes images to a square; ImageNet tables of others resize the shorter side, keep the aspect
ratio, and crop the centre.
"""

import dataclasses
import sys
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from bit_jax import run_config
from bit_jax.configs import base
from bit_jax.data import datasets, pipeline, stream
from bit_jax.inference import evaluation
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclasses.dataclass(frozen=True)
class View:
  """How test images are prepared.

  Attributes:
    size: Side in pixels of the square that the network gets.
    shorter: Pixels that the shorter side is resized to before the centre is cropped; None: images
      are resized to the square, as in BiT.
    interpolation: For `shorter`, 'bilinear' or 'bicubic', antialiased. Squares are bilinear, not
      antialiased.
  """

  size: int
  shorter: int | None = None
  interpolation: str = "bilinear"

  def __str__(self) -> str:
    """Returns its name in tables."""
    if self.shorter is None:
      return f"{self.size} square"
    return f"{self.size} of {self.shorter}, {self.interpolation}"


class CentreCrops:
  """The centres of a source's images; a `stream.Source`.

  As torchvision's Resize and CenterCrop on Pillow images: the longer side is rounded down, offsets
  to the nearest integer.
  """

  def __init__(self, source: stream.Source, view: View):
    """Takes the images, and a view with a shorter side."""
    self._source, self._view = source, view

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image's centre, [size, size, 3] uint8, and its label."""
    pixels, label = self._source.read(index)
    image, size, shorter = Image.fromarray(pixels), self._view.size, self._view.shorter
    assert shorter is not None
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    resized = image.resize((width, height), _FILTERS[self._view.interpolation])
    return np.asarray(resized.crop((left, top, left + size, top + size))), label


@dataclasses.dataclass(frozen=True)
class TestSet:
  """The test images of a data set, prepared in one way.

  Attributes:
    spec: The data set.
    view: How they are prepared.
    loaded: The images.
  """

  spec: datasets.DatasetSpec
  view: View
  loaded: pipeline.LoadedPart


def load(dataset: str, view: View, data_dir: str | None = None) -> TestSet:
  """Opens the test split of a data set; other splits are not read.

  Args:
    dataset: Its name, as in configs.
    view: How images are prepared.
    data_dir: Where tfds keeps prepared sets; None for its default.

  Raises:
    UserError: The set is unknown, not prepared or faulty.
  """
  square = view.shorter is None
  request = base.get_config("weights=none")
  request.dataset, request.data_dir = dataset, data_dir
  request.resize = request.crop = request.test_size = view.size
  config, data = run_config.prepare(request)
  room = config.resident_share * devices.resident_memory(devices.describe()) if square else 0
  loaded = pipeline.load_part(data, run_config.selection(config), "test", room)
  if not square:
    crops = CentreCrops(loaded.part.source, view)
    part = dataclasses.replace(loaded.part, source=crops, size=None)
    loaded = dataclasses.replace(loaded, part=part, image_size=(view.size, view.size))
  return TestSet(data.spec, view, loaded)


def evaluate(
  params: Any, architecture: architectures.Architecture, tests: TestSet, *, batch_size: int = 256
) -> dict[str, float]:
  """Evaluates every test image once, in exact float32, and shows progress.

  Args:
    params: Parameter tree on the host.
    architecture: The network.
    tests: The images.
    batch_size: Images at once over all devices; fewer if they don't fit.

  Returns:
    'loss', 'top1' and, of many classes, 'top5'.

  Raises:
    UserError: A device has too little memory, or an image can't be read.
  """
  platform = devices.describe().platform
  model = resnet_v2.create(architecture.name, tests.spec.num_classes, platform=platform)
  progress = tqdm.tqdm(
    total=len(tests.loaded.part),
    desc=f"{architecture.name} on {tests.spec.name} at {tests.view}",
    unit=" images",
    mininterval=0.1 if sys.stderr.isatty() else 60,
  )
  with progress:
    # TF32 is less exact than the differences to be found.
    found = evaluation.evaluate_part(
      model, params, tests.view.size, tests.loaded, batch_size, progress.update, exact=True
    )
  return found.means
