"""What the tests of exports share: a small network, and a photo that every form classifies."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import synthetic
from PIL import Image
from sklearn import datasets

from bit_jax.export import checking
from bit_jax.inference import networks
from bit_jax.models import resnet_v2

SIZE = 40  # not a multiple of 32: stages have sides of 10, 5, 3 and 2
NAMES = ("tulip", "Gänseblümchen", "a|b", "rose_red", "sun, flower")


def network(name="R14x0.5", size=SIZE, class_names=NAMES, **more):
  return networks.Network(
    name=f"weights/{name}.npz",
    model=resnet_v2.create(name, len(class_names)),
    params=synthetic.parameters(name, len(class_names)),
    class_names=class_names,
    size=size,
    file=pathlib.Path(f"{name}.npz"),
    sha256="0" * 64,
    **more,
  )


def photo():
  """Returns [427, 640, 3] uint8."""
  return datasets.load_sample_image("flower.jpg")


def photo_in(folder):
  """Saves the photo without loss as the file that cards read."""
  Image.fromarray(photo()).save(folder / "photo.jpg", format="PNG")


def code_of(folder):
  """Returns the Python code of a folder's card."""
  return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)[1]


def run_card(folder, python=sys.executable):
  """Runs the code of a card in a process of its own.

  Returns its logits, None if it computes none, and the class and probability that it prints.
  """
  code = code_of(folder)
  if "logits" in code:
    code += "\nnp.save('logits.npy', np.asarray(logits))"
  command = [python, "-W", "ignore", "-c", code]
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  path = folder / "logits.npy"
  name, probability = done.stdout.strip().rsplit(" ", 1)
  return np.load(path) if path.exists() else None, name, float(probability)


def apart(found, expected):
  """Returns the largest difference, relative to the largest expected value."""
  return np.abs(found - expected).max() / np.abs(expected).max()


def logits(of, images):
  return checking.logits(of, np.asarray(images))


def softmax(values):
  exponentials = np.exp(values - values.max(-1, keepdims=True))
  return exponentials / exponentials.sum(-1, keepdims=True)
