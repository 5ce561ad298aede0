"""Tests of bit_jax.data.images."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent import futures

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bit_jax.data import images
from bit_jax.runtime import errors

RANDOM = np.random.Generator(np.random.Philox(7))
RGB = RANDOM.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = RGB[..., 0]
ALPHA = np.resize(np.array([0, 1, 127, 128, 254, 255], np.uint8), GREY.shape)
ORIENTATION = 0x0112
# How a stored picture is to be turned to be seen (EXIF 2.3), as sequences of Pillow's own steps.
TURNS = {
  1: [],
  2: [Image.Transpose.FLIP_LEFT_RIGHT],
  3: [Image.Transpose.ROTATE_180],
  4: [Image.Transpose.FLIP_TOP_BOTTOM],
  5: [Image.Transpose.TRANSPOSE],
  6: [Image.Transpose.ROTATE_270],
  7: [Image.Transpose.TRANSVERSE],
  8: [Image.Transpose.ROTATE_90],
}


@pytest.fixture(autouse=True)
def _silent_pillow():
  """Silences Pillow again: pytest replaces the filters for each test."""
  warnings.filterwarnings("ignore", module=r"PIL\.")


def encode(image, form, **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def on_white(rgb, alpha):
  share = alpha[..., None] / 255
  return rgb * share + 255 * (1 - share)


def grey(values):
  return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=-1)


@pytest.mark.parametrize(
  ("form", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_as_they_were(form, options):
  decoded = images.decode(encode(RGB, form, **options))
  assert decoded.dtype == np.uint8
  assert decoded.flags.c_contiguous
  np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(form):
  smooth = np.array(Image.fromarray(RGB[:3, :5]).resize((20, 12)))
  decoded = images.decode(encode(smooth, form, quality=95)).astype(int)
  assert decoded.shape == (12, 20, 3)
  assert np.abs(decoded - smooth).mean() < 8


def test_jpeg_equals_pillow():
  data = encode(RGB, "JPEG")
  np.testing.assert_array_equal(images.decode(data), np.array(Image.open(io.BytesIO(data))))


JPEGS = {
  "colour": {},
  "grey": {"mode": "L"},
  "no colours left out": {"subsampling": 0},
  "fewer colours across": {"subsampling": 1},
  "progressive": {"progressive": True},
  "restarts": {"restart_marker_blocks": 3},
  "metadata": {"orientation": 1},
  "turned": {"orientation": 6},
}


def jpeg(mode="RGB", orientation=None, **options):
  """Returns a JPEG file of a smooth picture with some noise."""
  waves = 100 + 60 * np.sin(
    np.arange(70)[:, None, None] / 9 + np.arange(91)[:, None] / 5 + [0, 1, 2]
  )
  pixels = (waves + RANDOM.integers(0, 40, waves.shape)).astype(np.uint8)
  if orientation:
    options["exif"] = Image.Exif()
    options["exif"][ORIENTATION] = orientation
  return encode(Image.fromarray(pixels).convert(mode), "JPEG", quality=90, **options)


def outcome(data, monkeypatch, by_pillow):
  with monkeypatch.context() as patch:
    if by_pillow:
      patch.setattr(images, "_by_opencv", lambda *_: None)
    try:
      return images.decode(data)
    except images.Unreadable as e:
      return str(e)


@pytest.mark.parametrize("kind", JPEGS)
def test_plain_jpegs_are_decoded_to_the_pixels_of_pillow(kind, monkeypatch):
  data = jpeg(**JPEGS[kind])
  decoded = outcome(data, monkeypatch, by_pillow=False)
  assert decoded.flags.c_contiguous
  np.testing.assert_array_equal(decoded, outcome(data, monkeypatch, by_pillow=True))


def test_opencv_decodes_plain_jpegs_alone(monkeypatch):
  monkeypatch.setattr(images.cv2, "imdecode", lambda *_: np.zeros((70, 91, 3), np.uint8))
  plain = {kind for kind, options in JPEGS.items() if not images.decode(jpeg(**options)).any()}
  assert plain == JPEGS.keys() - {"progressive"}


def test_jpegs_without_metadata_need_no_pillow(monkeypatch):
  monkeypatch.setattr(images, "_open", lambda _: pytest.fail("Pillow was asked"))
  for kind in JPEGS.keys() - {"progressive", "metadata", "turned"}:
    assert images.decode(jpeg(**JPEGS[kind])).shape == (70, 91, 3)


@pytest.mark.parametrize("kind", ["colour", "grey", "metadata"])
def test_damaged_jpegs_are_refused_or_shown_as_pillow_does(kind, monkeypatch):
  """Where OpenCV gives up in the middle of an image, it returns the beginning without a word."""
  whole, refused = jpeg(**JPEGS[kind]), 0
  for _ in range(400):
    data = bytearray(whole)
    for place in RANDOM.integers(2, len(data) - 2, RANDOM.integers(1, 20)):
      data[place] = RANDOM.choice([0, 0xC0, 0xC4, 0xD9, 0xFF, RANDOM.integers(256)])
    expected = outcome(bytes(data), monkeypatch, by_pillow=True)
    np.testing.assert_array_equal(outcome(bytes(data), monkeypatch, by_pillow=False), expected)
    refused += isinstance(expected, str)
  assert 40 < refused < 360


def test_a_path_and_its_bytes_are_the_same(tmp_path):
  path = tmp_path / "a b ü.jpg"  # and a PNG whose name says JPEG
  path.write_bytes(encode(RGB, "PNG"))
  np.testing.assert_array_equal(images.decode(path), RGB)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_grey_has_three_equal_channels(form):
  np.testing.assert_array_equal(images.decode(encode(GREY, form)), grey(GREY))


def test_one_bit():
  bits = GREY > 127
  data = encode(Image.fromarray(bits), "PNG")
  np.testing.assert_array_equal(images.decode(data), grey(255 * bits))


def test_sixteen_bit_grey_is_scaled_and_rounded():
  values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
  decoded = images.decode(encode(values, "PNG"))
  np.testing.assert_array_equal(decoded, grey(np.rint(values / 257)))


def test_sixteen_bit_colour_keeps_the_upper_byte():
  wide = RANDOM.integers(0, 2**16, (3, 5, 3), dtype=np.uint16)
  rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)

  def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

  data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 16, 2, 0, 0, 0))
  data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
  np.testing.assert_array_equal(images.decode(data), wide >> 8)


def test_cmyk_jpeg():
  # Pure inks, large enough for the DCT to keep them: none, cyan, magenta, yellow, black.
  inks = np.array([[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255]])
  blocks = inks.astype(np.uint8).repeat(16, 0)[None].repeat(16, 0)
  data = encode(Image.fromarray(blocks, "CMYK"), "JPEG", quality=100)
  colours = images.decode(data)[8, 8::16].astype(int)
  expected = [[255] * 3, [0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0]]
  np.testing.assert_allclose(colours, expected, atol=3)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP"])
def test_palette(form):
  picture = Image.fromarray(RGB).quantize(16)
  expected = np.array(picture.convert("RGB"))
  np.testing.assert_array_equal(images.decode(encode(picture, form)), expected)


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))])
def test_palette_with_transparency_shows_white_through(transparency):
  picture = Image.fromarray(RGB).quantize(16)
  rgb, numbers = np.array(picture.convert("RGB")), np.array(picture)
  if isinstance(transparency, int):
    alpha = np.where(numbers == transparency, 0, 255)
  else:
    alpha = np.frombuffer(transparency, np.uint8)[numbers]
  decoded = images.decode(encode(picture, "PNG", transparency=transparency))
  np.testing.assert_allclose(decoded, on_white(rgb, alpha), atol=0.51)


def test_transparent_gif_shows_white_through():
  picture = Image.fromarray(RGB).quantize(16)
  hidden = np.array(picture) == 3
  decoded = images.decode(encode(picture, "GIF", transparency=3))
  assert hidden.any()
  assert (decoded[hidden] == 255).all()


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparent_colours_show_white_through(form):
  options = {"lossless": True, "exact": True} if form == "WEBP" else {}
  data = encode(np.dstack([RGB, ALPHA]), form, **options)
  np.testing.assert_allclose(images.decode(data), on_white(RGB, ALPHA), atol=0.51)


def test_transparent_grey_shows_white_through():
  decoded = images.decode(encode(np.dstack([GREY, ALPHA]), "PNG"))
  np.testing.assert_allclose(decoded, on_white(grey(GREY), ALPHA), atol=0.51)


def test_a_colour_declared_transparent_shows_white():
  rgb = RGB.copy()
  rgb[2, 3] = (1, 2, 3)
  decoded = images.decode(encode(rgb, "PNG", transparency=(1, 2, 3)))
  rgb[2, 3] = 255
  np.testing.assert_array_equal(decoded, rgb)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(form):
  frames = [Image.new("RGB", (6, 4), c) for c in ("red", "lime", "blue")]
  options = {"lossless": True} if form == "WEBP" else {}
  data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
  np.testing.assert_array_equal(images.decode(data), np.full((4, 6, 3), (255, 0, 0)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(tmp_path, form, orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  options = {"lossless": True} if form == "WEBP" else {}
  data = encode(RGB, form, exif=exif, **options)
  seen = Image.open(io.BytesIO(data)).convert("RGB")
  for step in TURNS[orientation]:
    seen = seen.transpose(step)
  np.testing.assert_array_equal(images.decode(data), np.array(seen))
  (tmp_path / "a").write_bytes(data)
  assert images.size(tmp_path / "a") == (seen.height, seen.width)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_makes_no_sense_is_none(orientation):
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  np.testing.assert_array_equal(images.decode(encode(RGB, "PNG", exif=exif)), RGB)


@pytest.mark.parametrize(
  "exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\x99\x99"]
)
def test_damaged_exif_changes_nothing(exif):
  data, plain = encode(RGB, "JPEG", exif=exif), encode(RGB, "JPEG")
  np.testing.assert_array_equal(images.decode(data), images.decode(plain))


@pytest.mark.parametrize(
  ("data", "reason"),
  [
    (b"", "is empty"),
    (b"This is no image, whatever it is called.", "not a JPEG, PNG, BMP, GIF or WebP"),
    (encode(RGB, "TIFF"), "not a JPEG, PNG, BMP, GIF or WebP"),
    (b"\xff\xd8\xff\xe0", "."),
    (encode(RGB, "JPEG")[:-200], "is truncated"),
    (encode(RGB, "PNG")[:-200], "is truncated"),
    (encode(RGB, "BMP")[:-200], "is truncated"),
    (encode(RGB, "GIF")[:-200], "is truncated"),
  ],
)
def test_what_cannot_be_decoded_says_why(tmp_path, data, reason):
  with pytest.raises(images.Unreadable, match=reason):
    images.decode(data)
  (tmp_path / "a.jpg").write_bytes(data)
  with pytest.raises(images.Unreadable, match=reason) as caught:
    images.decode(tmp_path / "a.jpg")
  assert str(tmp_path) not in str(caught.value)
  assert isinstance(caught.value, errors.UserError)


def test_size_reads_the_header_alone(tmp_path):
  path = tmp_path / "cut.png"
  path.write_bytes(encode(RGB, "PNG")[:-200])
  assert images.size(path) == (12, 20)
  path.write_bytes(b"")
  with pytest.raises(images.Unreadable, match="is empty"):
    images.size(path)


def test_a_file_that_cannot_be_opened(tmp_path):
  for call in (images.decode, images.size):
    with pytest.raises(images.Unreadable, match="can't be opened"):
      call(tmp_path / "none.png")
    with pytest.raises(images.Unreadable, match="can't be opened"):
      call(tmp_path)


def test_a_bomb_is_unreadable_and_a_large_image_is_not_warned_of(monkeypatch):
  data = encode(RGB, "PNG")
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB[..., 0].size - 1)
  np.testing.assert_array_equal(images.decode(data), RGB)
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB[..., 0].size // 2 - 1)
  with pytest.raises(images.Unreadable, match="larger than Pillow"):
    images.decode(data)


def test_pillow_s_warnings_are_silent_even_with_warnings_as_errors(tmp_path):
  path = tmp_path / "large.png"
  path.write_bytes(encode(RGB, "PNG"))
  code = (
    "from PIL import Image; import pathlib; from bit_jax.data import images;"
    f"Image.MAX_IMAGE_PIXELS = {RGB[..., 0].size - 1};"
    f"print(images.size(pathlib.Path({str(path)!r})))"
  )
  command = [sys.executable, "-W", "error::Warning:PIL", "-c", code]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert (done.stdout.strip(), done.stderr) == (str(RGB.shape[:2]), "")


def test_threads_get_the_same(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB[..., 0].size - 1)
  data = [encode(RGB + np.uint8(i), "PNG") for i in range(100)]
  with futures.ThreadPoolExecutor(8) as threads:
    decoded = list(threads.map(images.decode, data))
  np.testing.assert_array_equal(decoded, [RGB + np.uint8(i) for i in range(100)])


FILES = [encode(RGB, f) for f in ("JPEG", "PNG", "BMP", "GIF", "WEBP")]
FILES.append(encode(np.dstack([RGB, ALPHA]), "PNG"))
FILES.append(encode(GREY.astype(np.uint16), "PNG"))


@given(
  data=st.sampled_from(FILES),
  cut=st.integers(0, 4000),
  places=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
)
def test_whatever_is_damaged_decodes_or_is_unreadable(data, cut, places):
  damaged = bytearray(data)
  for place, value in places:
    damaged[place % len(data)] = value
  try:
    decoded = images.decode(bytes(damaged[: len(data) - cut % len(data)]))
  except images.Unreadable:
    return
  assert decoded.dtype == np.uint8
  assert decoded.ndim == 3
  assert decoded.shape[2] == 3


def test_a_jpeg_of_hundreds_of_scans_is_refused():
  data = encode(RGB, "JPEG", progressive=True)
  assert data.count(b"\xff\xda") < 20
  scan = data[data.rfind(b"\xff\xda") : -2]
  assert images.decode(data[:-2] + 50 * scan + data[-2:]).shape == RGB.shape
  with pytest.raises(images.Unreadable, match="has more than 100 scans"):
    images.decode(data[:-2] + 101 * scan + data[-2:])


@pytest.mark.parametrize(
  ("image", "options"),
  [
    (Image.fromarray(np.dstack((RGB, ALPHA))), {}),
    (Image.fromarray(np.dstack((RGB, ALPHA))).convert("LA"), {}),
    (Image.fromarray(RGB).quantize(16), {"transparency": 3}),
    (Image.fromarray(RGB).quantize(16), {}),
    (Image.fromarray(GREY.astype(np.uint16) * 200), {}),
    (Image.fromarray(GREY), {"transparency": 100}),
  ],
)
def test_strips_are_as_the_whole(image, options, monkeypatch):
  data = encode(image, "PNG", **options)
  whole = images.decode(data)
  monkeypatch.setattr(images, "_STRIP_PIXELS", 3 * image.width)
  monkeypatch.setattr(images, "_converted", counted(images._converted, calls := []))
  np.testing.assert_array_equal(images.decode(data), whole)
  assert calls == [3] * (image.height // 3)


def counted(convert, calls):
  def converted(image):
    calls.append(image.height)
    return convert(image)

  return converted
