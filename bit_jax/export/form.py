"""What every export format provides."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from bit_jax.inference import networks

# Code of a card that reads a photo as `bit_jax.data.images` does: upright, in colour.
PHOTO = """image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")"""


@dataclasses.dataclass(frozen=True)
class Form:
  """How a network is written for one library, and how that library uses it.

  Attributes:
    name: The name of its folder if a format has several forms.
    library: The library that loads it, as hubs name it.
    files: {file in the folder: what it holds}, without those that every export has.
    write: Writes these files to an existing folder.
    classify: Loads the files in a folder with the library, and returns the logits [B, C] of
      images [B, h, w, 3] uint8.
    runtime: The package that `classify` loads them with.
    example: Returns Python code for the card, which runs in the folder: it prints the most
      probable class of `photo.jpg` and its probability.
    remarks: Sentences for the card on what differs in this form.
    needs: Other packages that `runtime` needs for that.
  """

  name: str
  library: str
  files: Mapping[str, str]
  write: Callable[[networks.Network, pathlib.Path], None]
  classify: Callable[[pathlib.Path, networks.Network, np.ndarray], np.ndarray]
  runtime: str
  example: Callable[[networks.Network], str]
  remarks: str
  needs: tuple[str, ...] = ()
