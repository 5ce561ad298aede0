"""The script that compiles for accelerators: its target, its step and its report, without them."""

import re

import jax
import jax.numpy as jnp
import pytest

from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import errors
from experiments.accelerators import compile_step, traffic

TINY = architectures.Architecture("tiny", (1, 0, 0, 0), 0.5)


@pytest.mark.parametrize(
  ("target", "package"), [("h100", r"jax\[cuda13\]"), ("v5e", r"jax\[tpu\]")]
)
def test_a_missing_compiler_is_named(target, package):
  with pytest.raises(errors.UserError, match=rf"{target} needs {package}"):
    compile_step.main(["", target])


def test_the_step_is_compiled_from_shapes_alone():
  model = resnet_v2.ResNetV2(TINY, 10, jnp.dtype("bfloat16"), platform="cpu")
  compiled = compile_step.compile_step(model, 32, 2, tuple(jax.devices()[:2]))
  shown = compile_step.report(compiled, 2, ideal=1e3)
  assert re.search(r"^temporaries +0\.0\d GB$", shown, re.MULTILINE)
  assert re.search(r"^kernels +[1-9]", shown, re.MULTILINE)
  moved = sum(kernel.bytes for kernel in traffic.kernels(compiled.as_text())) / 2
  assert f"{moved / 1e6:.1f} MB an image: {moved / 1e3:.2f} times 0.0 MB" in shown
