"""Programs of `jax.export` for CPU, CUDA and TPU at once, with the weights as their argument.

Resizing is a program of its own: a program is compiled for each shape of its input, which takes
milliseconds for resizing and up to minutes for the network. With the weights inside of the program,
a R50x1 takes twice the memory and twice the time to compile.
"""

import json
import pathlib
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from bit_jax.export import form
from bit_jax.inference import networks
from bit_jax.models import resnet_v2
from bit_jax.weights import npz

_PLATFORMS = ("cpu", "cuda", "tpu")
_RESIZE, _CLASSIFY, _WEIGHTS = "resize.stablehlo", "classify.stablehlo", "weights.npz"
_SIGNATURE = "signature.json"


def write(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes both programs, the weights, and a description in JSON."""
  from jax import export

  size = network.size
  batch, height, width = export.symbolic_shape("batch, height, width")
  images = jax.ShapeDtypeStruct((batch, height, width, 3), jnp.uint8)
  resized = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
  variables = jax.tree.map(np.asarray, resnet_v2.standardize_params(network.params))
  flat = flax.traverse_util.flatten_dict(variables, sep="/")
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in flat.items()}
  resize = export.export(jax.jit(lambda x: _resize(x, size)), platforms=_PLATFORMS)(images)
  classify = export.export(jax.jit(_classifier(network)), platforms=_PLATFORMS)(shapes, resized)
  for name, program in ((_RESIZE, resize), (_CLASSIFY, classify)):
    (folder / name).write_bytes(program.serialize())
  npz.write(folder / _WEIGHTS, flat)
  described = {
    "class_names": network.class_names,
    "size": size,
    "platforms": _PLATFORMS,
    "programs": {
      _RESIZE: {
        "arguments": ["images: uint8 [batch, height, width, 3]"],
        "results": [f"float32 [batch, {size}, {size}, 3] in [-1, 1]"],
      },
      _CLASSIFY: {
        "arguments": [
          f"the arrays of {_WEIGHTS} by name: float32",
          f"images: float32 [batch, {size}, {size}, 3] in [-1, 1]",
        ],
        "results": [
          f"logits: float32 [batch, {len(network.class_names)}]",
          f"probabilities: float32 [batch, {len(network.class_names)}]",
        ],
      },
    },
    "jax": jax.__version__,
  }
  text = json.dumps(described, indent=2, ensure_ascii=False)
  (folder / _SIGNATURE).write_text(f"{text}\n", encoding="utf-8")


def _classifier(network: networks.Network) -> Any:
  """Returns the function of flat variables and images that returns logits and probabilities."""
  architecture, num_classes = network.model.architecture, network.model.num_classes

  def logits_on(platform: str) -> Any:
    model = resnet_v2.create(architecture.name, num_classes, platform=platform)
    return lambda variables, images: model.apply(variables, images)[0]

  def classify(flat: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, jax.Array]:
    variables = flax.traverse_util.unflatten_dict(flat, sep="/")
    logits = jax.lax.platform_dependent(
      variables, images, cpu=logits_on("cpu"), tpu=logits_on("tpu"), default=logits_on("gpu")
    )
    return logits, jax.nn.softmax(logits)

  return classify


def _resize(images: jax.Array, size: int) -> jax.Array:
  """As `augmentation.prepare_eval`, for images whose size is known only when it runs."""
  x = images.astype(jnp.float32)
  for axis in (1, 2):
    source = images.shape[axis]
    scale = jnp.asarray(source, jnp.float32) / size
    centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) * scale - 0.5
    below = jnp.floor(centres)
    shape = [1] * x.ndim
    shape[axis] = size
    weight = (centres - below).reshape(shape)
    lower = jnp.maximum(below.astype(jnp.int32), 0)
    upper = jnp.minimum(jnp.ceil(centres).astype(jnp.int32), source - 1)
    x = jnp.take(x, lower, axis) * (1 - weight) + jnp.take(x, upper, axis) * weight
  return (x - 127.5) / 127.5


def _classify(folder: pathlib.Path, network: networks.Network, images: np.ndarray) -> np.ndarray:
  from jax import export

  resize, classify = (
    jax.jit(export.deserialize(bytearray((folder / name).read_bytes())).call)
    for name in (_RESIZE, _CLASSIFY)
  )
  with np.load(folder / _WEIGHTS) as weights:
    return np.asarray(classify(dict(weights), resize(images))[0])


def _example(network: networks.Network) -> str:
  return f"""import json
import pathlib

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps

resize, classify = (
  jax.jit(export.deserialize(bytearray(pathlib.Path(file).read_bytes())).call)
  for file in ("{_RESIZE}", "{_CLASSIFY}")
)
weights = jax.device_put(dict(np.load("{_WEIGHTS}")))
names = json.loads(pathlib.Path("{_SIGNATURE}").read_text(encoding="utf-8"))["class_names"]
{form.PHOTO}
logits, probabilities = classify(weights, resize(np.asarray(image)[None]))
print(names[probabilities[0].argmax()], probabilities[0].max())"""


FORM = form.Form(
  name="stablehlo",
  library="jax",
  files={
    _CLASSIFY: "the weights and images as `resize.stablehlo` returns them to logits and "
    "probabilities",
    _RESIZE: "images [batch, height, width, 3] uint8 of any size, resized and scaled",
    _WEIGHTS: "the weights; kernels are standardised",
    _SIGNATURE: "arguments, results and the names of the classes",
  },
  write=write,
  classify=_classify,
  runtime="jax",
  example=_example,
  remarks=(
    "Both programs are written by `jax.export`, for CPU, CUDA and TPU; they need neither Flax nor "
    "this project. Each is compiled for a new shape of its input, which takes long for "
    f"`{_CLASSIFY}`: keep to one batch size. JAX guarantees to load them for six months after its "
    f"version {jax.__version__}; the weights stay readable."
  ),
)
