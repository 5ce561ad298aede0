"""ONNX: one file that takes images of any size, written operation by operation.

The graph has about 25 nodes for each unit of the network and uses only operations of opset 17 that
every runtime has. A converter from JAX (jax2onnx 0.17) gives ten times as many nodes, which take
six times as long to load, for images of one size.
"""

import json
import pathlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bit_jax.export import form, graph
from bit_jax.inference import networks
from bit_jax.models import architectures, ops
from bit_jax.runtime import imports

if TYPE_CHECKING:
  import onnx

_MODEL = "model.onnx"
_OPSET, _IR_VERSION = 17, 8  # of 2022; onnxruntime 1.12 and later
_MAX_BYTES = 1_900_000_000  # protobuf's limit is 2 GB; larger weights go to a file of their own


def write(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes `model.onnx`; weights of more than 1.9 GB lie beside it, in `model.onnx.data`.

  Raises:
    UserError: onnx isn't installed.
  """
  with imports.extra("onnx"):
    import onnx

  arrays = graph.parameters(network.params)
  model = _model(network, arrays)
  path = folder / _MODEL
  if sum(array.nbytes for array in arrays.values()) > _MAX_BYTES:
    onnx.save_model(model, path, save_as_external_data=True, location=f"{_MODEL}.data")
  else:
    onnx.save_model(model, path)
  onnx.checker.check_model(path, full_check=True)


def _model(network: networks.Network, arrays: dict[str, np.ndarray]) -> "onnx.ModelProto":
  from onnx import TensorProto, helper

  build = _Builder(arrays)
  size = network.size
  build.node("Shape", "images", out="shape")
  x = build.resize("images", 1, size)
  x = build.node("Transpose", build.resize(x, 2, size), out="resized", perm=[0, 3, 1, 2])
  middle = build.constant("middle", np.float32(127.5))
  x = build.node("Div", build.node("Sub", x, middle, out="centred"), middle, out="scaled")
  x = graph.body(network.model.architecture, _Places(x, size), build).name
  x = build.node("Flatten", build.node("GlobalAveragePool", x, out="mean"), out="features")
  kernel = build.constant("head/conv2d/kernel", arrays["head/conv2d/kernel"][0, 0])
  bias = build.constant("head/conv2d/bias", arrays["head/conv2d/bias"])
  build.node("Softmax", build.node("Gemm", x, kernel, bias, out="logits"), out="probabilities")
  images = helper.make_tensor_value_info(
    "images", TensorProto.UINT8, ["batch", "height", "width", 3]
  )
  shape: list[str | int | None] = ["batch", len(network.class_names)]
  outputs = [
    helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    for name in ("logits", "probabilities")
  ]
  body = helper.make_graph(build.nodes, "BiT", [images], outputs, build.constants)
  model = helper.make_model(
    body,
    opset_imports=[helper.make_opsetid("", _OPSET)],
    ir_version=_IR_VERSION,
    producer_name="bit_jax",
    producer_version=metadata.version("bit_jax"),
  )
  names = json.dumps(network.class_names, ensure_ascii=False)
  facts = {"class_names": names, "size": str(size), "architecture": network.model.architecture.name}
  helper.set_model_props(model, facts)
  return model


class _Places(NamedTuple):
  """A value of shape [batch, C, side, side]."""

  name: str
  side: int


class _Builder:
  """Collects nodes and constants: the `graph.Operations` of ONNX.

  Attributes:
    nodes: In the order of computation.
    constants: Weights and other fixed tensors.
  """

  def __init__(self, arrays: dict[str, np.ndarray]):
    self.nodes: list[Any] = []
    self.constants: list[Any] = []
    self._arrays = arrays
    groups = architectures.NUM_GROUPS
    self._ones = self.constant("ones", np.ones(groups, np.float32))
    self._zeros = self.constant("zeros", np.zeros(groups, np.float32))
    self._groups = self.constant("groups", np.array([0, groups, -1]))  # 0 keeps the batch

  def node(self, kind: str, *inputs: str, out: str, **attributes: Any) -> str:
    """Adds a node and returns the name of its output, `out`."""
    from onnx import helper

    self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
    return out

  def constant(self, name: str, array: Any) -> str:
    """Adds a constant and returns its name."""
    from onnx import numpy_helper

    self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return name

  def resize(self, x: str, axis: int, size: int) -> str:
    """Adds the resize of one axis of [B, h, w, 3]: bilinear, half-pixel centres, not antialiased.

    In the arithmetic of `tf.image.resize`: the operation Resize rounds the places in the source
    otherwise, and reads all of a large image.
    """
    from onnx import TensorProto

    name = ("height", "width")[axis - 1]
    places = np.arange(size, dtype=np.float32) + np.float32(0.5)
    half, one = (self.constant(f"{name}/{value}", np.float32(value)) for value in (0.5, 1))
    length = self.node("Gather", "shape", self.constant(f"{name}/axis", np.array([axis])), out=name)
    scale = self.node("Cast", length, out=f"{name}/float", to=TensorProto.FLOAT)
    scale = self.node(
      "Div", scale, self.constant(f"{name}/size", np.float32(size)), out=f"{name}/scale"
    )
    centres = self.node("Mul", self.constant(f"{name}/target", places), scale, out=f"{name}/scaled")
    centres = self.node("Sub", centres, half, out=f"{name}/centres")
    below = self.node("Floor", centres, out=f"{name}/below")
    above = self.node("Ceil", centres, out=f"{name}/above")
    weight = self.node("Sub", centres, below, out=f"{name}/fraction")
    column = self.constant(f"{name}/column", np.array([size, 1] + [1] * (2 - axis)))
    weight = self.node("Reshape", weight, column, out=f"{name}/weight")
    last = self.node(
      "Sub", length, self.constant(f"{name}/step", np.array([1])), out=f"{name}/last"
    )
    first = self.constant(f"{name}/first", np.array([0]))
    parts = []
    for side, place, limit, bound, factor in (
      ("lower", below, "Max", first, self.node("Sub", one, weight, out=f"{name}/rest")),
      ("upper", above, "Min", last, weight),
    ):
      index = self.node("Cast", place, out=f"{name}/{side}/whole", to=TensorProto.INT64)
      index = self.node(limit, index, bound, out=f"{name}/{side}/index")
      values = self.node("Gather", x, index, out=f"{name}/{side}/values", axis=axis)
      values = self.node("Cast", values, out=f"{name}/{side}/floats", to=TensorProto.FLOAT)
      parts.append(self.node("Mul", values, factor, out=f"{name}/{side}"))
    return self.node("Add", *parts, out=f"{name}/resized")

  def convolve(self, x: _Places, name: str, stride: int) -> _Places:
    """See `graph.Operations`; kernels become OIHW."""
    kernel = self._arrays[f"{name}/kernel"].transpose(3, 2, 0, 1)
    size = kernel.shape[-1]
    y = self.node(
      "Conv",
      x.name,
      self.constant(f"{name}/kernel", kernel),
      out=name,
      kernel_shape=[size, size],
      strides=[stride, stride],
      pads=[size // 2] * 4,
    )
    return _Places(y, -(-x.side // stride))

  def group_norm_relu(self, x: _Places, name: str) -> _Places:
    """See `graph.Operations`. Runtimes have no group norm, and normalise instances instead."""
    gamma, beta = (self._arrays[f"{name}/{leaf}"][:, None, None] for leaf in ("gamma", "beta"))
    shape = np.array([0, len(gamma), x.side, x.side])
    y = self.node("Reshape", x.name, self._groups, out=f"{name}/groups")
    y = self.node(
      "InstanceNormalization",
      y,
      self._ones,
      self._zeros,
      out=f"{name}/normalized",
      epsilon=ops.GROUP_NORM_EPSILON,
    )
    y = self.node("Reshape", y, self.constant(f"{name}/shape", shape), out=f"{name}/places")
    y = self.node("Mul", y, self.constant(f"{name}/gamma", gamma), out=f"{name}/scaled")
    y = self.node("Add", y, self.constant(f"{name}/beta", beta), out=f"{name}/shifted")
    return _Places(self.node("Relu", y, out=name), x.side)

  def max_pool(self, x: _Places) -> _Places:
    """See `graph.Operations`. MaxPool pads with minus infinity; where it pads, zero is the least.

    Not by Pad before MaxPool: onnxruntime 1.20 to 1.31 takes both for a MaxPool that pads.
    """
    side = -(-x.side // 2)
    at_edge = np.isin(np.arange(side), (0, x.side // 2))  # the last place only if the side is odd
    least = np.where(at_edge[:, None] | at_edge, 0, np.finfo(np.float32).min).astype(np.float32)
    y = self.node(
      "MaxPool", x.name, out="root_block/pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    )
    y = self.node("Max", y, self.constant("root_block/least", least), out="root_block")
    return _Places(y, side)

  def add(self, x: _Places, y: _Places) -> _Places:
    """See `graph.Operations`."""
    return _Places(self.node("Add", x.name, y.name, out=f"{y.name}/sum"), x.side)


def _classify(folder: pathlib.Path, network: networks.Network, images: np.ndarray) -> np.ndarray:
  import onnxruntime

  session = onnxruntime.InferenceSession(folder / _MODEL, providers=["CPUExecutionProvider"])
  logits: np.ndarray = session.run(["logits"], {"images": images})[0]
  return logits


def _example(network: networks.Network) -> str:
  return f"""import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("{_MODEL}")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
{form.PHOTO}
logits, probabilities = session.run(None, {{"images": np.asarray(image)[None]}})
print(names[probabilities[0].argmax()], probabilities[0].max())"""


FORM = form.Form(
  name="onnx",
  library="onnx",
  files={
    _MODEL: "images [batch, height, width, 3] uint8 of any size to logits and probabilities",
    f"{_MODEL}.data": "its weights, which are too large for one file",
  },
  write=write,
  classify=_classify,
  runtime="onnxruntime",
  example=_example,
  remarks=(
    "The model resizes and scales images itself, and has the names of its classes as the metadata "
    "`class_names`, a list in JSON."
  ),
)
