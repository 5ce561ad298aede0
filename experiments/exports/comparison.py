"""Runs the code of model cards in other processes, and compares its logits with the network's."""

import hashlib
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import flax.traverse_util
import numpy as np
from PIL import Image
from sklearn import datasets

from bit_jax.data import images
from bit_jax.export import checking, form, formats, writing
from bit_jax.inference import networks
from bit_jax.models import architectures, resnet_v2
from bit_jax.weights import catalogue
from experiments.exports import timm_round_trip

TRAINED, RANDOM = catalogue.EMBEDDED, "R50x1"
NETWORKS = (TRAINED, RANDOM)
TORCH = tuple(one.name for one in formats.FORMATS["safetensors"])
# `npz` has no runtime of its own, and `safetensors` is two forms.
FORMS = tuple(one for name, forms in formats.FORMATS.items() for one in forms if name != "npz")
_SIDE = 96  # of the images of the random network
# Runs a card's code for one photo after the other, and stores the logits of each.
_DRIVER = """
import pathlib
import numpy as np
code = pathlib.Path("card_code.txt").read_text(encoding="utf-8")
found = []
for photo in {photos!r}:
  names = {{}}
  exec(code.replace("photo.jpg", photo), names)
  found.append(np.asarray(names["logits"])[0])
np.save("logits.npy", np.stack(found))
"""


class Compared(NamedTuple):
  """One form of one network in its own runtime.

  Attributes:
    network: Its name.
    form: Of the export.
    logits: [N, C] of the photos, as the card's code computes them.
    difference: Their largest difference from the network's, by the largest logit of a photo.
    digest: SHA-256 of the files of the export, without its card.
  """

  network: str
  form: form.Form
  logits: np.ndarray
  difference: float
  digest: str


def network(name: str) -> networks.Network:
  """Returns one of `NETWORKS`: the embedded checkpoint, or a network of random numbers."""
  if name == TRAINED:
    return networks.load(name, dtype="float32")
  architecture = architectures.find(name)
  count = timm_round_trip.NUM_CLASSES
  flat = timm_round_trip.random_parameters(architecture)
  return networks.Network(
    name=name,
    model=resnet_v2.create(name, count),
    params=flax.traverse_util.unflatten_dict(flat, sep="/"),
    class_names=tuple(f"class {i}" for i in range(count)),
    size=_SIDE,
    file=pathlib.Path("random numbers"),
    sha256="0" * 64,
  )


def sample_photos(folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes the two photos of scikit-learn, without loss, and returns their paths."""
  paths = []
  for name in ("china.jpg", "flower.jpg"):
    paths.append(folder / f"{name}.png")
    Image.fromarray(datasets.load_sample_image(name)).save(paths[-1])
  return paths


def own_logits(of: networks.Network, photos: Sequence[pathlib.Path]) -> np.ndarray:
  """Returns the network's logits of photos, [N, C], of images that aren't rounded when resized."""
  return np.concatenate([checking.logits(of, images.decode(path)[None]) for path in photos])


def compare(
  name: str,
  forms: Sequence[form.Form],
  photos: Sequence[pathlib.Path],
  folder: pathlib.Path,
  python: str,
) -> Iterator[Compared]:
  """Yields how each form of a network compares.

  Args:
    name: One of `NETWORKS`.
    forms: Which forms.
    photos: Image files.
    folder: An empty folder.
    python: The Python that runs the code of the cards.

  Raises:
    RuntimeError: The code of a card fails.
  """
  net = network(name)
  expected = own_logits(net, photos)
  for written in writing.write(net, tuple(forms), folder / name, "make exports"):
    card = (written.folder / writing.CARD).read_text(encoding="utf-8")
    digest = digest_of(written.folder)
    logits = _run(card, written.folder, photos, python)
    apart = np.abs(logits - expected).max(1) / np.abs(expected).max(1)
    yield Compared(name, written.form, logits, float(apart.max()), digest)
    shutil.rmtree(written.folder)


def digest_of(folder: pathlib.Path) -> str:
  """Returns one SHA-256 of the names and contents of a folder's files, without the card."""
  digest = hashlib.sha256()
  for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != writing.CARD):
    digest.update(f"{path.relative_to(folder)}\0".encode())
    digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()


def _run(
  card: str, folder: pathlib.Path, photos: Sequence[pathlib.Path], python: str
) -> np.ndarray:
  """Runs the code of a card in its folder; returns the logits [N, C]."""
  found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
  assert found is not None
  (folder / "card_code.txt").write_text(found[1], encoding="utf-8")
  driver = _DRIVER.format(photos=[str(path.absolute()) for path in photos])
  command = [python, "-W", "ignore", "-c", driver]
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(f"The code of {folder / writing.CARD} fails:\n{done.stderr}")
  logits: np.ndarray = np.load(folder / "logits.npy")
  return logits
