"""Labels that are computed from the features of an example, for tasks without stored labels.

Source: google-research/task_adaptation @d7630d3, `data/{clevr,kitti,dsprites,smallnorb}.py`,
which is the code of VTAB (arXiv 1910.04867).
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# A distance has class i if i of these are strictly below it.
CLEVR_DISTANCES = (8.0, 8.5, 9.0, 9.5, 10.0)  # CLEVR's own units, from the camera
KITTI_DISTANCES = (8.0, 20.0, 999.0)  # metres

VEHICLE_TYPES = 3  # KITTI's types 0 to 2: car, van, truck
NO_VEHICLE = 1000.0  # metres; above every measured distance


@dataclasses.dataclass(frozen=True)
class Derivation:
  """Computation of a label from a tfds example.

  Attributes:
    features: The features that are needed, nested as in `tfds.decode.PartialDecoding`; the leaves
      are True.
    derive: Maps a decoded example with those features, as numpy arrays and scalars (a tfds Sequence
      of n is one mapping of arrays with n rows), to a label of at least 0.
  """

  features: Mapping[str, Any]
  derive: Callable[[Mapping[str, Any]], int]


def clevr_distance(depths: Iterable[float]) -> int:
  """Returns the class of the nearest object's depth, 0 (at most 8) to 5 (over 10).

  Args:
    depths: Depth of every object, the third of its `pixel_coords`; at least one.
  """
  return bisect.bisect_left(CLEVR_DISTANCES, min(depths))


def kitti_distance(types: Iterable[int], depths: Iterable[float]) -> int:
  """Returns the class of the nearest vehicle's distance: at most 8 m, at most 20 m, farther, none.

  Args:
    types: The class of each object in KITTI's order; the first three are vehicles.
    depths: Each object's distance along the camera's axis in metres, the third of its `location`.
  """
  # Both are from one Sequence of tfds, so they have the same length.
  vehicles = [z for t, z in zip(types, depths, strict=False) if t < VEHICLE_TYPES]
  return bisect.bisect_left(KITTI_DISTANCES, min(vehicles, default=NO_VEHICLE))


def _stored(feature: str, per_class: float = 1) -> Derivation:
  """Returns the derivation of a stored number, where so many neighbours are one class."""
  return Derivation({feature: True}, lambda example: int(int(example[feature]) // per_class))


DERIVATIONS: Mapping[str, Derivation] = {
  "label": _stored("label"),
  "clevr-count": Derivation(
    {"objects": {"pixel_coords": True}},
    lambda example: len(example["objects"]["pixel_coords"]) - 3,  # an image has 3 to 10 objects
  ),
  "clevr-distance": Derivation(
    {"objects": {"pixel_coords": True}},
    lambda example: clevr_distance(c[2] for c in example["objects"]["pixel_coords"]),
  ),
  "kitti-distance": Derivation(
    {"objects": {"type": True, "location": True}},
    lambda example: kitti_distance(
      example["objects"]["type"], (xyz[2] for xyz in example["objects"]["location"])
    ),
  ),
  "dsprites-xpos": _stored("label_x_position", 2),  # 32 positions in 16 classes
  "dsprites-orientation": _stored("label_orientation", 2.5),  # 40 angles, alternately 3 and 2
  "smallnorb-azimuth": _stored("label_azimuth"),  # tfds has halved it to 0 to 17
  "smallnorb-elevation": _stored("label_elevation"),
}
