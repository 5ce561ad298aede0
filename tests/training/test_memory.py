"""What a step takes, by arithmetic."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax import memory as command
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import errors
from bit_jax.training import memory, optimizer, steps

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)
NEED = memory.Need(100, 10)


def task(architecture=TINY, dtype=jnp.float32, crop=32, remat=False, momentum_dtype="float32"):
  model = resnet_v2.ResNetV2(architecture, 10, jnp.dtype(dtype), remat)
  return memory.Task(model, crop + 8, crop, (36, 36), momentum_dtype)


def test_activations_by_hand():
  """32 pixels: 16 x 16 leave the stem, 8 x 8 the pool and block 1, 4 x 4 block 2."""
  size = memory.count(TINY, 32)
  assert size.stem == 256 * 32
  first = (64 * (32 + 32 + 32), 64 * (32 + 32 + 128 + 128))
  second = (64 * (128 + 64) + 16 * 64, 64 * 64 + 16 * (64 + 256 + 256))
  assert size.normed == first[0] + second[0] + 16 * 256  # the last norm
  assert size.entering == 64 * 32 + 64 * 128
  assert size.largest_unit == max(sum(first), sum(second))


@pytest.mark.parametrize("momentum_dtype", ["float32", "bfloat16"])
def test_the_state_is_what_was_counted(momentum_dtype):
  t = task(momentum_dtype=momentum_dtype)
  shapes = jax.eval_shape(t.model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])
  state = steps.create_state(params, optimizer.sgd(0.9, momentum_dtype))
  held = sum(x.nbytes for x in jax.tree.leaves(state))
  assert t.state_bytes == pytest.approx(held, rel=0.02)


def test_rematerialisation_keeps_less():
  keeps = dataclasses.replace(task(architectures.find("R152x4"), jnp.bfloat16, 480), platform="gpu")
  keeps, again = memory.bound(keeps), memory.bound(keeps.with_remat())
  assert again.per_image < 0.7 * keeps.per_image
  assert again.fixed == keeps.fixed


def test_rematerialisation_is_not_counted_on_where_it_has_no_effect():
  t = dataclasses.replace(task(), platform="cpu")
  assert memory.bound(t.with_remat()) == memory.bound(t)


def test_whole_batches_wait_while_their_parts_are_computed():
  t = dataclasses.replace(task(), platform="gpu")
  assert memory.waiting_bytes(t, 16) == 2 * 16 * 36 * 36 * 3
  assert memory.waiting_bytes(dataclasses.replace(t, platform="cpu"), 16) == 5 * 16 * 36 * 36 * 3


def test_what_an_evaluation_takes_by_hand():
  need = memory.evaluation_bound(task())
  largest = 64 * 96 + 64 * 320  # of test_activations_by_hand
  images = 2 * 36 * 36 + 4 * (36 * 36 + 40 * (36 + 40) + 3 * 32 * 32)
  assert need.per_image == 4 * (2 * largest + 3 * 256 * 32) + 3 * images
  assert need.fixed == 4 * task().num_parameters


@pytest.mark.parametrize(
  ("budget", "size"), [(260, 16), (259, 8), (180, 8), (179, 4), (120, 2), (119, None), (0, None)]
)
def test_the_largest_that_fits(budget, size):
  assert memory.largest(NEED, [2, 4, 8, 16], budget) == size


def test_the_largest_network_fits_a_device_of_80_gb(capsys):
  """By arithmetic, and also within the three quarters that XLA takes of it by default."""
  for size in ("80e9", "60e9"):
    command.main(["", "BiT-M-R152x4", "480", "512", size])
    out = capsys.readouterr().out
    assert "by arithmetic" in out
    assert "3.75 GB   936,533,224 in float32" in out  # 4 bytes each
    found = re.search(
      r"activations of an image +([\d.]+) GB +micro-batches of (\d+): ([\d.]+)", out
    )
    per_image, images, whole = map(float, found.groups())
    assert whole == pytest.approx((5 * 4 * 936_533_224 / 1e9) + images * per_image, rel=0.01)
    assert 2 <= images < 512
    assert whole <= 0.9 * float(size) / 1e9


def test_a_command_of_an_odd_number_of_images(capsys):
  command.main(["", "R50x1", "128", "129", "1e9"])
  assert "micro-batches of 3:" in capsys.readouterr().out  # 43 would take 4 GB
  with pytest.raises(errors.UserError, match="IMAGES must be at least 1, not 0"):
    command.main(["", "R50x1", "128", "0", "1e9"])
  for wrong in ("24", "nan", "inf"):
    with pytest.raises(errors.UserError, match="BYTES must be"):
      command.main(["", "R50x1", "128", "8", wrong])


@pytest.mark.parametrize(
  ("line", "sentence"),
  [
    ("", "has 0 of four arguments; its form is python -m bit_jax.memory MODEL CROP IMAGES BYTES"),
    ("R50x1 128 8", "has 3 of four arguments; its form is"),
    ("R50x1 128 8 80GB float32 more", "has more than five arguments; its form is"),
    ("R50x1 128 512 many", "BYTES must be the memory of a device, such as 80e9, 80GB or 80GiB"),
    ("R50x1 128 8 -80GB", "BYTES must be .* not '-80GB'"),
    ("R50x1 128 8 80XB", "BYTES must be .* not '80XB'"),
    ("R50x1 128 8 1e999GB", "BYTES must be .* not '1e999GB'"),
    ("R50x1 128 8 8.0.0GB", "BYTES must be .* not '8.0.0GB'"),
    ("R50x1 128px 8 80GB", "CROP must be a whole number, not '128px'"),
    ("R50x1 0 8 80GB", "CROP must be at least 1, not 0"),
    ("R50x1 99999999 8 80GB", "CROP must be at most 16,384, not 99999999"),
    ("R50x1 128 1.5 80GB", "IMAGES must be a whole number, not '1.5'"),
    ("R50x1 128 99999999999 80GB", "IMAGES must be at most 1,000,000"),
    ("R99 128 8 80GB", "There is no model 'R99'"),
    ("R50x1 128 8 80GB float16", "dtype='float16' is not known; it is one of bfloat16, float32"),
  ],
)
def test_a_command_of_another_form(line, sentence):
  with pytest.raises(errors.UserError, match=sentence) as e:
    command.main(["", *line.split()])
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  ("text", "size"),
  [
    ("80e9", 80e9),
    ("8e+10", 80e9),
    ("80GB", 80e9),
    ("80gb", 80e9),
    ("80 GB", 80e9),
    ("80G", 80e9),
    ("80GiB", 80 * 2**30),
    ("0.5TB", 5e11),
    ("512MiB", 2**29),
    ("80_000_000_000", 80e9),
    ("8000000000B", 8e9),
  ],
)
def test_bytes_have_units(capsys, text, size):
  assert command.parse_bytes(text) == size
  command.main(["", "R50x1", "128", "8", *text.split(" ")])
  assert f"of {memory.gigabytes(size)}, of which a tenth" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("error", "short"),
  [
    (MemoryError(), True),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"), True),
    (jax.errors.JaxRuntimeError("Out of memory allocating 1 byte"), True),
    (jax.errors.JaxRuntimeError("INTERNAL: it broke"), False),
    (ValueError("Out of memory"), False),
  ],
)
def test_what_is_raised_where_memory_is_short(error, short):
  assert memory.ran_out(error) == short
