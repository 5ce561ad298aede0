"""`python -m bit_jax.predict`: what it prints for good, odd and broken images, and mistakes."""

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import running
from PIL import Image

from bit_jax import predict

NETWORK = "R14x0.5-CIFAR100"
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (30, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


@pytest.fixture(autouse=True)
def _shared_compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def run(capsys, *argv):
  status = predict.main([NETWORK, *map(str, argv)])
  out, err = capsys.readouterr()
  return status, out, err


def bomb():
  """Returns a PNG that says that it has 400 million pixels."""

  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100))


def odd_files(folder):
  """Writes images of odd kinds that can be read; returns their names."""
  sixteen = Image.fromarray(RANDOM.integers(0, 65536, (20, 30), dtype=np.uint16))
  palette = PICTURE.quantize(16)
  turned = PICTURE.getexif()
  turned[0x0112] = 6
  frames = [Image.fromarray(255 - PIXELS), PICTURE]
  pictures = {
    "cmyk.jpg": (PICTURE.convert("CMYK"), "JPEG", {}),
    "turned.jpg": (PICTURE, "JPEG", {"exif": turned}),
    "progressive.jpg": (PICTURE, "JPEG", {"progressive": True}),
    "grey.jpeg": (PICTURE.convert("L"), "JPEG", {}),
    "CAPITALS.JPG": (PICTURE, "JPEG", {}),
    "16 bit.png": (sixteen, "PNG", {}),
    "1 bit.png": (PICTURE.convert("1"), "PNG", {}),
    "palette.png": (palette, "PNG", {"transparency": 3}),
    "grey alpha.png": (PICTURE.convert("LA"), "PNG", {}),
    "rgba.png": (PICTURE.convert("RGBA"), "PNG", {}),
    "a pixel.png": (PICTURE.crop((0, 0, 1, 1)), "PNG", {}),
    "a line.png": (PICTURE.resize((2000, 1)), "PNG", {}),
    "animated.gif": (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
    "animated.webp": (frames[0], "WEBP", {"save_all": True, "append_images": frames[1:]}),
    "old.bmp": (PICTURE, "BMP", {}),
    "modern.webp": (PICTURE, "WEBP", {}),
    "a png.jpg": (PICTURE, "PNG", {}),
    "comma, \"quote\" 'and'.png": (PICTURE, "PNG", {}),
    "new\nline.png": (PICTURE, "PNG", {}),
    "\udcff\udcfe.png": (PICTURE, "PNG", {}),
    "ünïcödé 猫 🐈.png": (PICTURE, "PNG", {}),
    "-dash.png": (PICTURE, "PNG", {}),
    "[glob]*.png": (PICTURE, "PNG", {}),
    "folder.jpg/inside.png": (PICTURE, "PNG", {}),
  }
  for name, (picture, form, options) in pictures.items():
    (folder / name).parent.mkdir(exist_ok=True)
    with (folder / name).open("wb") as file:
      picture.save(file, form, **options)
  return list(pictures)


def broken_files(folder):
  """Writes files that can't be read; returns {name: a part of the reason}."""
  whole = io.BytesIO()
  PICTURE.save(whole, "JPEG")
  (folder / "truncated.jpg").write_bytes(whole.getvalue()[:-200])
  (folder / "text.jpg").write_text("not an image")
  (folder / "empty.png").touch()
  (folder / "bomb.png").write_bytes(bomb())
  (folder / "dangling.jpg").symlink_to("nowhere")
  (folder / "itself.jpg").symlink_to("itself.jpg")
  return {
    "truncated.jpg": "is truncated",
    "text.jpg": "is not a JPEG, PNG, BMP, GIF or WebP image",
    "empty.png": "is empty",
    "bomb.png": "is larger than",
    "dangling.jpg": "can't be opened (No such file or directory)",
    "itself.jpg": "can't be opened (Too many levels of symbolic links)",
  }


def test_odd_files_are_predicted_and_broken_ones_named(here, capsys):
  folder = here / "photos"
  folder.mkdir()
  odd, broken = odd_files(folder), broken_files(folder)
  (folder / "around").symlink_to(folder)
  (folder / "notes.txt").write_text("no image")
  (folder / "no extension").write_bytes((folder / "grey.jpeg").read_bytes())
  assert len(odd) + len(broken) >= 30
  status, out, err = run(capsys, "photos", "photos/no extension", "photos/a pixel.png", "--json")
  assert status == 1
  found = {line["path"]: line for line in map(json.loads, out.splitlines())}
  assert len(found) == len(out.splitlines())
  listed = {f"photos/{name}" for name in (*odd, *broken)}
  assert set(found) == {*listed, "photos/no extension"}
  for name in (*odd, "no extension"):
    predictions = found[f"photos/{name}"]["predictions"]
    assert [p["probability"] for p in predictions] == sorted(
      (p["probability"] for p in predictions), reverse=True
    )
    assert len({p["class"] for p in predictions}) == 5
  for name, reason in broken.items():
    sentence = f"The image photos/{name} {reason}"
    assert found[f"photos/{name}"]["error"].startswith(sentence)
    assert sum(sentence in line for line in err.splitlines()) == 1
  assert "Ignored 1 repeated path." in err
  assert f"{len(found)} images in" in err
  # The same picture gives the same classes, however it is stored.
  same = ["a png.jpg", "old.bmp", "rgba.png", "[glob]*.png", "folder.jpg/inside.png"]
  assert len({json.dumps(found[f"photos/{name}"]["predictions"]) for name in same}) == 1


def test_forms_of_the_output(here, capsys):
  PICTURE.save("a.png")
  PICTURE.rotate(180).save("b.png")
  status, out, _ = run(capsys, "a.png", "b.png", "--top=2")
  assert status == 0
  lines = out.splitlines()
  assert (lines[0], lines[3], len(lines)) == ("a.png", "b.png", 6)
  first = lines[1].split(maxsplit=1)
  _, out, _ = run(capsys, "a.png", "b.png", "--top=1")
  assert out.splitlines()[0].split(maxsplit=2) == ["a.png", *first]
  _, out, _ = run(capsys, "a.png", "b.png", "--csv", "--top=200")
  rows = list(csv.DictReader(io.StringIO(out)))
  assert len(rows) == 200  # a hundred classes each
  assert [row["rank"] for row in rows[:100]] == [str(i) for i in range(1, 101)]
  assert sum(float(row["probability"]) for row in rows[:100]) == pytest.approx(1, abs=1e-5)
  assert f"{float(rows[0]['probability']):.2%}" == first[0]
  assert rows[0]["class"] == first[1]


def test_a_sheet(here, capsys):
  for i in range(3):
    PICTURE.save(f"{i}.png")
  status, out, err = run(capsys, ".", "--sheet=new/sheet.png", "--csv", "--top=1")
  assert (status, len(out.splitlines())) == (0, 4)
  assert "new/sheet.png shows 3 images." in err
  with Image.open("new/sheet.png") as sheet:
    assert sheet.width > 600
  (here / "broken.jpg").write_text("no")
  status, out, err = run(capsys, "broken.jpg", "--sheet=none.png")
  assert (status, out) == (1, "")
  assert "none.png is not written: no image can be read." in err


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["nowhere.jpg"], "File or folder not found: nowhere.jpg."),
    (["*.tif"], "No file or folder matches the pattern *.tif."),
    (["empty"], "The folder empty contains no images"),
    (["a.png", "--top=0"], "--top must be at least 1"),
    (["a.png", "--batch_size=0"], "--batch_size must be at least 1"),
    (["a.png", "--size=0"], "--size must be at least 1"),
    (["a.png", "--sheet=empty"], "--sheet=empty can't be written (Is a directory)"),
    (["a.png", "--sheet=a.png/x.png"], "can't be written (Not a directory)"),
  ],
)
def test_mistakes_are_named(here, capsys, argv, message):
  (here / "empty").mkdir()
  PICTURE.save("a.png")
  status, out, err = run(capsys, *argv)
  assert (status, out) == (2, "")
  assert err.count("\n") == 1
  assert err.startswith("error: ")
  assert message in err


@pytest.mark.parametrize("argv", [[], [NETWORK], [NETWORK, "a.png", "--json", "--csv"]])
def test_command_lines_that_cannot_be_parsed(capsys, argv):
  with pytest.raises(SystemExit) as raised:
    predict.main(argv)
  assert raised.value.code == 2
  assert "usage: python -m bit_jax.predict" in capsys.readouterr().err


def test_an_unknown_network_is_named(here, capsys):
  PICTURE.save("a.png")
  assert predict.main(["R14x0.5-CIFAR10", "a.png"]) == 2
  assert "R14x0.5-CIFAR100" in capsys.readouterr().err


def test_a_list_from_a_pipe_and_a_reader_that_leaves(here, tmp_path_factory):
  """As in `find . -print0 | python -m bit_jax.predict RUN - | head -c 5`."""
  PICTURE.save("new\nline.png")
  names = ["new\nline.png", "missing.png", "./new\nline.png", *(f"{i}.png" for i in range(150))]
  for name in names[3:]:
    (here / name).symlink_to("new\nline.png")
  variables = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(running.cache_folder(tmp_path_factory)),
    "PYTHONPATH": str(running.ROOT),
  }
  command = [sys.executable, "-m", "bit_jax.predict", NETWORK, "-"]
  pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
  process = subprocess.Popen(command, env=variables, **pipes)
  with process.stdin:
    process.stdin.write("\0".join(names).encode())
  with process.stdout:
    assert process.stdout.readline() == b"new\\nline.png\n"
  with process.stderr:
    repeated, missing = process.stderr.read().splitlines()
  assert process.wait() == 0
  assert repeated == b"Ignored 1 repeated path."
  assert missing.startswith(b"The image missing.png can't be opened (No such file")


def test_help_is_quick_and_has_examples(printed_by):
  code = (
    "import sys\nfrom bit_jax import predict\n"
    "try:\n  predict.main(['--help'])\nexcept SystemExit:\n  pass\n"
    "print([m for m in ('jax', 'flax', 'matplotlib', 'tensorflow') if m in sys.modules])"
  )
  shown = printed_by(code)
  assert "examples:\n  python -m bit_jax.predict runs/flowers photos/" in shown
  assert shown.endswith("[]\n")
