"""The formats by the names that users give."""

from bit_jax.export import form, npz_folder, onnx_file, savedmodel, stablehlo, torch_folders

FORMATS: dict[str, tuple[form.Form, ...]] = {
  "npz": (npz_folder.FORM,),
  "safetensors": (torch_folders.TIMM, torch_folders.TRANSFORMERS),
  "onnx": (onnx_file.FORM,),
  "savedmodel": (savedmodel.FORM,),
  "stablehlo": (stablehlo.FORM,),
}
