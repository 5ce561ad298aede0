"""Drawn stand-ins for photographs, so that the notebooks run without a data set.

    folder = stand_ins.flowers("stand_ins/flowers")

A folder is written once, as `<split>/<class>/*.jpg`; the same call always draws the same pictures.
They look a little like their classes and are much easier to tell apart than photographs.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

_SCALE = 2  # drawn this much larger, then reduced, for smooth edges
_COUNTS = {"train": 40, "test": 20}  # pictures of each class


def flowers(folder: str | pathlib.Path) -> pathlib.Path:
  """Draws five kinds of flowers; returns the folder."""
  kinds = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "roses": _rose,
    "sunflowers": _sunflower,
    "tulips": _tulip,
  }
  return _written(pathlib.Path(folder), kinds, _meadow, odd=False)


def cats_and_dogs(folder: str | pathlib.Path) -> pathlib.Path:
  """Draws faces of cats and dogs; some training pictures have odd sizes. Returns the folder."""
  return _written(pathlib.Path(folder), {"cat": _cat, "dog": _dog}, _room, odd=True)


def _written(
  folder: pathlib.Path,
  kinds: dict[str, Callable[..., None]],
  background: Callable[[np.random.Generator, tuple[int, int]], Image.Image],
  odd: bool,
) -> pathlib.Path:
  for split, count in _COUNTS.items():
    for number, (name, draw_one) in enumerate(kinds.items()):
      (folder / split / name).mkdir(parents=True, exist_ok=True)
      for i in range(count):
        path = folder / split / name / f"{i:03}.jpg"
        if path.exists():
          continue
        random = np.random.default_rng([number, i, split == "test"])
        size = (int(random.integers(200, 321)), int(random.integers(200, 321)))
        if odd and split == "train" and i % 20 == 7:  # a thumbnail, or a strip
          size = (24, 20) if i < 20 else (460, 90)
        blurred = background(random, (80, 80 * size[1] // size[0]))
        picture = blurred.resize((size[0] * _SCALE, size[1] * _SCALE))
        draw_one(random, picture)
        reduced = picture.resize(size, Image.Resampling.LANCZOS)
        grain = random.integers(-8, 9, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(reduced) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
  return folder


def _shade(random: np.random.Generator, colour: Colour, spread: int = 20) -> Colour:
  red, green, blue = np.clip(np.array(colour) + random.integers(-spread, spread + 1, 3), 0, 255)
  return int(red), int(green), int(blue)


def _gradient(size: tuple[int, int], above: Colour, below: Colour) -> Image.Image:
  share = np.linspace(0, 1, size[1])[:, None, None]
  rows = np.array(above) * (1 - share) + np.array(below) * share
  return Image.fromarray(np.broadcast_to(rows, (size[1], size[0], 3)).astype(np.uint8))


def _meadow(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
  picture = _gradient(size, _shade(random, (120, 160, 110), 40), _shade(random, (40, 90, 40), 25))
  draw, unit = ImageDraw.Draw(picture), min(size)
  for _ in range(25):
    x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
    r = random.uniform(unit / 20, unit / 6)
    draw.ellipse((x - r, y - r, x + r, y + r), _shade(random, (70, 125, 60), 40))
  return picture.filter(ImageFilter.GaussianBlur(unit / 25))


def _room(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
  wall, floor = _shade(random, (190, 180, 165), 60), _shade(random, (120, 95, 75), 45)
  picture = _gradient(size, wall, _shade(random, wall, 15))
  edge = int(size[1] * random.uniform(0.6, 0.85))
  picture.paste(floor, (0, edge, *size))
  return picture.filter(ImageFilter.GaussianBlur(min(size) / 60))


class _Place:
  """A place in a picture: its centre, and a unit of length."""

  def __init__(self, random: np.random.Generator, picture: Image.Image, share: float):
    width, height = picture.size
    self.draw = ImageDraw.Draw(picture)
    self.unit = min(width, height) * share * random.uniform(0.8, 1.15)
    self.x = width * random.uniform(0.42, 0.58)
    self.y = height * random.uniform(0.42, 0.58)
    self.angle = random.uniform(-0.2, 0.2)

  def at(self, x: float, y: float) -> tuple[float, float]:
    """Returns a point, given in units from the centre, turned by the angle of the place."""
    c, s = np.cos(self.angle), np.sin(self.angle)
    return self.x + self.unit * (x * c - y * s), self.y + self.unit * (x * s + y * c)

  def blob(self, x: float, y: float, rx: float, ry: float, colour: Colour, turn: float = 0) -> None:
    """Draws an ellipse."""
    t = np.linspace(0, 2 * np.pi, 40)
    c, s = np.cos(turn), np.sin(turn)
    across, down = rx * np.cos(t), ry * np.sin(t)
    ring = np.stack([x + across * c - down * s, y + across * s + down * c], axis=1)
    self.polygon(ring.tolist(), colour)

  def polygon(self, points: Sequence[Sequence[float]], colour: Colour) -> None:
    """Draws a polygon."""
    self.draw.polygon([self.at(x, y) for x, y in points], colour)

  def line(self, points: Sequence[Sequence[float]], colour: Colour, width: float) -> None:
    """Draws a line."""
    pixels = max(1, int(width * self.unit))
    self.draw.line([self.at(x, y) for x, y in points], colour, pixels, joint="curve")


def _stem(place: _Place, random: np.random.Generator) -> None:
  green = _shade(random, (60, 120, 50))
  place.line([(0, 0), (random.uniform(-0.2, 0.2), 1.5), (0, 4)], green, 0.12)


def _petals(
  place: _Place,
  random: np.random.Generator,
  count: int,
  reach: tuple[float, float],
  colour: Colour,
  *,
  length: float = 0.45,
  width: float = 0.16,
) -> None:
  for turn in np.linspace(0, 2 * np.pi, count, endpoint=False) + random.uniform(0, 1):
    far = random.uniform(*reach)
    x, y = far * np.cos(turn), far * np.sin(turn)
    place.blob(x, y, length, width, _shade(random, colour, 12), turn)


def _daisy(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.4)
  _stem(place, random)
  _petals(place, random, int(random.integers(14, 20)), (0.5, 0.6), (240, 240, 238))
  place.blob(0, 0, 0.28, 0.26, _shade(random, (235, 190, 40)))


def _dandelion(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.36)
  _stem(place, random)
  for reach in (0.65, 0.45, 0.25, 0.1):
    _petals(place, random, 40, (reach, reach + 0.1), (245, 205, 25), length=0.3, width=0.05)


def _sunflower(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.42)
  _stem(place, random)
  _petals(place, random, int(random.integers(18, 24)), (0.65, 0.75), (240, 175, 20), width=0.13)
  place.blob(0, 0, 0.5, 0.48, _shade(random, (85, 50, 25)))
  for _ in range(60):
    turn, far = random.uniform(0, 2 * np.pi), random.uniform(0, 0.4)
    dark = _shade(random, (50, 30, 15))
    place.blob(far * np.cos(turn), far * np.sin(turn), 0.03, 0.03, dark)


def _rose(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.4)
  _stem(place, random)
  colour = [(185, 25, 45), (220, 90, 120), (235, 200, 190)][int(random.integers(3))]
  for far in np.linspace(0.75, 0.05, 7):
    for turn in np.linspace(0, 2 * np.pi, 5, endpoint=False) + random.uniform(0, 1):
      dark = 1 - 0.35 * (1 - far)
      red, green, blue = (int(dark * c) for c in _shade(random, colour, 14))
      x, y = 0.5 * far * np.cos(turn), 0.5 * far * np.sin(turn)
      place.blob(x, y, 0.6 * far + 0.08, 0.45 * far + 0.08, (red, green, blue), turn + 1.2)


def _tulip(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.4)
  _stem(place, random)
  colour = [(200, 40, 60), (235, 120, 40), (200, 90, 190), (245, 215, 80)][int(random.integers(4))]
  for x, tip in ((-0.35, -0.15), (0.35, 0.15), (0, 0)):
    shade = _shade(random, colour, 15)
    place.blob(x, 0.1, 0.33, 0.6, shade)
    place.polygon([(x - 0.3, -0.1), (x + tip, -0.95), (x + 0.3, -0.1)], shade)
  place.polygon([(-0.1, 2.2), (-0.9, 0.6), (-0.5, 2.2)], _shade(random, (70, 130, 60)))


def _eyes(place: _Place, random: np.random.Generator) -> None:
  for side in (-1, 1):
    eye = _shade(random, (60, 70, 40), 30)
    place.blob(0.33 * side, -0.15, 0.13, 0.14, (245, 245, 240))
    place.blob(0.33 * side, -0.15, 0.09, 0.12, eye)
    place.blob(0.33 * side, -0.15, 0.04, 0.1, (10, 10, 10))


def _cat(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.34)
  fur = [(210, 140, 70), (120, 115, 110), (50, 48, 50), (225, 215, 200)][int(random.integers(4))]
  fur, dark = _shade(random, fur), _shade(random, tuple(int(0.6 * c) for c in fur), 10)
  place.blob(0, 1.6, 0.9, 1.1, fur)
  for side in (-1, 1):
    place.polygon([(0.95 * side, -0.35), (0.8 * side, -1.35), (0.15 * side, -0.75)], fur)
    place.polygon([(0.8 * side, -0.55), (0.74 * side, -1.1), (0.35 * side, -0.75)], (225, 160, 160))
  place.blob(0, 0, 1, 0.85, fur)
  for x in (-0.25, 0, 0.25):
    place.line([(x, -0.8), (0.8 * x, -0.5)], dark, 0.07)
  _eyes(place, random)
  place.polygon([(-0.1, 0.18), (0.1, 0.18), (0, 0.3)], (210, 120, 125))
  for side in (-1, 1):
    for y in (0.25, 0.35, 0.45):
      place.line([(0.2 * side, 0.35), (1.15 * side, y)], (235, 235, 235), 0.02)


def _dog(random: np.random.Generator, picture: Image.Image) -> None:
  place = _Place(random, picture, 0.34)
  fur = [(170, 115, 65), (235, 220, 190), (70, 55, 45), (150, 145, 140)][int(random.integers(4))]
  fur, dark = _shade(random, fur), _shade(random, tuple(int(0.6 * c) for c in fur), 10)
  place.blob(0, 1.7, 1.05, 1.1, fur)
  place.blob(0, 0, 0.85, 0.95, fur)
  for side in (-1, 1):
    place.blob(0.85 * side, 0, 0.27, 0.75, dark, -0.2 * side)
  _eyes(place, random)
  place.blob(0, 0.42, 0.48, 0.42, _shade(random, tuple(min(255, c + 45) for c in fur), 8))
  place.blob(0, 0.22, 0.2, 0.15, (25, 22, 22))
  if random.uniform() < 0.6:
    place.blob(0, 0.85, 0.16, 0.25, (225, 95, 110))
