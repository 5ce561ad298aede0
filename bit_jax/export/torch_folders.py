"""Safetensors for PyTorch: a folder that timm loads, and one that transformers loads.

They name the parameters differently, so that no file serves both. Kernels are written as trained:
both libraries standardise them, with 1e-8 in place of 1e-10 added to the variance.

Sources: huggingface/pytorch-image-models 1.0.31, `timm/models/resnetv2.py` and `_hub.py`;
huggingface/transformers 5.24, `models/bit`.
"""

import functools
import json
import pathlib
from typing import Any

import flax.traverse_util
import numpy as np

from bit_jax import weights
from bit_jax.export import form
from bit_jax.inference import networks
from bit_jax.models import architectures
from bit_jax.weights import layouts, safetensors_file

_MODEL, _CONFIG, _PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
_BILINEAR = 2  # in Pillow
_EPSILON = 1e-8  # of both libraries, in the standardisation
_HALF = [0.5, 0.5, 0.5]  # mean and deviation: [0, 1] becomes [-1, 1]
_REMARKS = (
  "This code resizes as in the evaluation of the network. {idiom} resizes with antialiasing, which "
  "changes the logits of larger images."
)


def _write_timm(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes a folder like those of timm on the hub."""
  architecture, size = network.model.architecture, network.size
  names = json.dumps(network.class_names, ensure_ascii=False)
  weights.save(folder / _MODEL, network.params, metadata={"class_names": names})
  preprocessing = {
    "input_size": [3, size, size],
    "fixed_input_size": False,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "mean": _HALF,
    "std": _HALF,
    "num_classes": len(network.class_names),
    "pool_size": None,
    "first_conv": "stem.conv",
    "classifier": "head.fc",
  }
  config = {
    "architecture": _timm_name(architecture),
    "num_classes": len(network.class_names),
    "num_features": architecture.num_features,
    "label_names": network.class_names,
    "pretrained_cfg": preprocessing,
  }
  _write_json(folder / _CONFIG, config)


def _timm_name(architecture: architectures.Architecture) -> str:
  """Returns e.g. 'resnetv2_50x1_bit' for 'R50x1'."""
  return f"resnetv2_{architecture.name.removeprefix('R')}_bit"


def _write_transformers(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes a folder for `BitForImageClassification` and `BitImageProcessor`."""
  flat = flax.traverse_util.flatten_dict(network.params, sep="/")
  arrays = {_transformers_key(k): layouts.TIMM.to_file(np.asarray(v)) for k, v in flat.items()}
  head = "classifier.1.weight"
  arrays[head] = arrays[head][:, :, 0, 0]
  names = network.class_names
  texts = {"class_names": json.dumps(names, ensure_ascii=False)}
  safetensors_file.write(folder / _MODEL, arrays, texts)
  architecture, size = network.model.architecture, network.size
  channels = architecture.stem_channels
  config = {
    "architectures": ["BitForImageClassification"],
    "model_type": "bit",
    "num_channels": 3,
    "embedding_size": channels,
    "hidden_sizes": [channels * 4 * 2**b for b in range(len(architecture.depths))],
    "depths": architecture.depths,
    "width_factor": 1,  # the sizes above include it; the head's ignores it
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "global_padding": None,
    "num_groups": architectures.NUM_GROUPS,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
    "drop_path_rate": 0.0,
    "dtype": "float32",
    "id2label": dict(enumerate(names)),
    "label2id": {name: label for label, name in enumerate(names)},
  }
  _write_json(folder / _CONFIG, config)
  processor = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": size, "width": size},
    "resample": _BILINEAR,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _HALF,
    "image_std": _HALF,
  }
  _write_json(folder / _PREPROCESSOR, processor)


def _transformers_key(name: str) -> str:
  """Returns e.g. 'bit.encoder.stages.0.layers.2.conv1.weight' for unit 3 of block 1."""
  key = layouts.TIMM.key(name)
  for timm, transformers in (
    ("stem.conv.", "bit.embedder.convolution."),
    ("stages.", "bit.encoder.stages."),
    (".blocks.", ".layers."),
    ("head.fc.", "classifier.1."),
  ):
    key = key.replace(timm, transformers)
  return f"bit.{key}" if key.startswith("norm.") else key


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  text = json.dumps(content, indent=2, ensure_ascii=False)
  path.write_text(f"{text}\n", encoding="utf-8")


def _classify_by_timm(
  folder: pathlib.Path, network: networks.Network, images: np.ndarray
) -> np.ndarray:
  import timm

  architecture = network.model.architecture
  if architecture.name not in architectures.SMALL:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
  else:
    from timm.models import resnetv2

    model = resnetv2.ResNetV2(
      layers=architecture.depths,
      width_factor=architecture.width,
      num_classes=len(network.class_names),
      stem_type="fixed",
      conv_layer=functools.partial(resnetv2.StdConv2d, eps=_EPSILON),
    )
    timm.models.load_checkpoint(model, str(folder / _MODEL))
  return _logits(model.eval(), network.size, images)


def _classify_by_transformers(
  folder: pathlib.Path, network: networks.Network, images: np.ndarray
) -> np.ndarray:
  import transformers

  model = transformers.BitForImageClassification.from_pretrained(folder)
  return _logits(lambda x: model.eval()(x).logits, network.size, images)


def _logits(model: Any, size: int, images: np.ndarray) -> np.ndarray:
  import torch

  x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
  x = torch.nn.functional.interpolate(x, (size, size), mode="bilinear") / 127.5 - 1
  with torch.no_grad():
    logits: np.ndarray = model(x).numpy()
  return logits


_PIL = "from PIL import Image, ImageOps"
_CODE = """import json
{first}
import numpy as np
{imports}

{model}
with open("{config}", encoding="utf-8") as file:
  names = {names}
{photo}
pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
scaled = torch.nn.functional.interpolate(pixels, ({size}, {size}), mode="bilinear") / 127.5 - 1
with torch.no_grad():
  logits = {logits}
probabilities = logits.softmax(-1)
print(names[probabilities[0].argmax()], float(probabilities[0].max()))"""


def _timm_example(network: networks.Network) -> str:
  architecture = network.model.architecture
  first, imports = "", f"import timm\nimport torch\n{_PIL}"
  model = 'model = timm.create_model("local-dir:.", pretrained=True).eval()'
  if architecture.name in architectures.SMALL:  # timm has no entry for them
    first = "from functools import partial\n"
    imports += "\nfrom timm.models import resnetv2"
    model = f"""model = resnetv2.ResNetV2(
  layers={architecture.depths},
  width_factor={architecture.width},
  num_classes={len(network.class_names)},
  stem_type="fixed",
  conv_layer=partial(resnetv2.StdConv2d, eps={_EPSILON}),
)
timm.models.load_checkpoint(model, "{_MODEL}")
model.eval()"""
  return _CODE.format(
    first=first,
    imports=imports,
    model=model,
    config=_CONFIG,
    names='json.load(file)["label_names"]',
    photo=form.PHOTO,
    size=network.size,
    logits="model(scaled)",
  )


def _transformers_example(network: networks.Network) -> str:
  return _CODE.format(
    first="",
    imports=f"import torch\n{_PIL}\nfrom transformers import BitForImageClassification",
    model='model = BitForImageClassification.from_pretrained(".").eval()',
    config=_CONFIG,
    names='[*json.load(file)["id2label"].values()]',
    photo=form.PHOTO,
    size=network.size,
    logits="model(scaled).logits",
  )


TIMM = form.Form(
  name="timm",
  library="timm",
  files={
    _MODEL: "the weights, named as timm names them; class names in its metadata",
    _CONFIG: "architecture, preprocessing and classes, as timm's models on the hub have them",
  },
  write=_write_timm,
  classify=_classify_by_timm,
  runtime="timm",
  needs=("torch",),
  example=_timm_example,
  remarks=_REMARKS.format(idiom="`timm.data.create_transform`"),
)
TRANSFORMERS = form.Form(
  name="transformers",
  library="transformers",
  files={
    _MODEL: "the weights, named as transformers names them; class names in its metadata",
    _CONFIG: "architecture and classes",
    _PREPROCESSOR: "preprocessing for `BitImageProcessor`",
  },
  write=_write_transformers,
  classify=_classify_by_transformers,
  runtime="transformers",
  needs=("torch",),
  example=_transformers_example,
  remarks=_REMARKS.format(idiom="`BitImageProcessor`"),
)
