"""`python -m bit_jax.memory`: its table, its units, and mistakes on its command line."""

import re

import pytest

from bit_jax import memory as command
from bit_jax.runtime import errors
from bit_jax.training import memory


def test_the_largest_network_fits_a_device_of_80_gb(capsys):
  """Also within the three quarters that XLA takes of it by default."""
  for size in ("80e9", "60e9"):
    command.main(["", "BiT-M-R152x4", "480", "512", size])
    out = capsys.readouterr().out
    assert "(estimated)" in out
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
  with pytest.raises(errors.UserError, match="images must be at least 1, not 0"):
    command.main(["", "R50x1", "128", "0", "1e9"])
  for wrong in ("24", "nan", "inf"):
    with pytest.raises(errors.UserError, match="bytes must be"):
      command.main(["", "R50x1", "128", "8", wrong])


@pytest.mark.parametrize(
  ("line", "sentence"),
  [
    ("R50x1 128 512 many", "bytes must be the memory of a device, such as 80e9, 80GB or 80GiB"),
    ("R50x1 128 8 80XB", "bytes must be .* not '80XB'"),
    ("R50x1 128 8 1e999GB", "bytes must be .* not '1e999GB'"),
    ("R50x1 128 8 8.0.0GB", "bytes must be .* not '8.0.0GB'"),
    ("R50x1 0 8 80GB", "crop must be at least 1, not 0"),
    ("R50x1 99999999 8 80GB", "crop must be at most 16,384, not 99999999"),
    ("R50x1 128 99999999999 80GB", "images must be at most 1,000,000"),
    ("R99 128 8 80GB", "Unknown model 'R99'"),
  ],
)
def test_a_value_that_cannot_be_used(line, sentence):
  with pytest.raises(errors.UserError, match=sentence) as e:
    command.main(["", *line.split()])
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  ("line", "fact"),
  [
    ("", "required: model, crop, images, bytes"),
    ("R50x1 128 8", "required: bytes"),
    ("R50x1 128 8 80GB float32 more", "unrecognized arguments: more"),
    ("R50x1 128px 8 80GB", "argument crop: invalid int value: '128px'"),
    ("R50x1 128 1.5 80GB", "argument images: invalid int value: '1.5'"),
    ("R50x1 128 8 80GB float16", "argument dtype: invalid choice: 'float16'"),
  ],
)
def test_a_command_of_another_form(capsys, line, fact):
  with pytest.raises(SystemExit) as e:
    command.main(["", *line.split()])
  assert e.value.code == 2
  assert fact in capsys.readouterr().err


@pytest.mark.parametrize(
  ("text", "size"),
  [
    ("80e9", 80e9),
    ("8e+10", 80e9),
    ("80GB", 80e9),
    ("80gb", 80e9),
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
  command.main(["", "R50x1", "128", "8", text])
  assert f"of {memory.gigabytes(size)}, of which a tenth" in capsys.readouterr().out
