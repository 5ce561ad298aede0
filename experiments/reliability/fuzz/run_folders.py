"""Run folders with one file that is damaged, or written by somebody else.

The first line of an input names the file; the rest is its content. The other files are those of a
finished run. Its report must show every text as text.
"""

import functools
import html.parser
import io
import json
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from bit_jax import run_config, weights
from bit_jax.configs import quickstart
from bit_jax.inference import networks
from bit_jax.report import run_page
from bit_jax.runs import mistakes, per_class, reporting, results, run_folder
from bit_jax.runtime import plots
from experiments.reliability.fuzz import mutation, target

_NAMES = ["cat", "dog", "<zzz onzzz=1>"]
_MEMORY = 4 << 30  # address space, of which the threads of JAX reserve much
_MARK = "<zzz onzzz=1>\"'&</title></script><zzz onzzz=1>"
_VALUES: tuple[Any, ...] = (
  *(None, True, 0, 1, -1, 0.5, 10**400, 2**63, float("nan"), float("inf"), 5e-324, 1e308, -1e308),
  *(
    "",
    _MARK,
    "\0",
    "\udcff",
    "\u2028",
    "x" * 5000,
    [],
    [1],
    [_MARK],
    {},
    {_MARK: 1},
    {"": [None]},
  ),
  *([{}], [[1, 2]], "float32", "R14x0.5", 224, "3", [{"changed": {_MARK: [1]}}], 10**9),
)
_KEPT = {  # of the sheet of predictions
  "tiles": [{"box": [0, 0, 4, 4], "caption": "cat"}, {"box": [4, 0, 8, 4], "caption": f"!{_MARK}"}]
}


def folders() -> target.Target:
  """Returns files of run folders."""
  files = _files()
  seeds = [name.encode() + b"\n" + content for name, content in files.items()]

  def build(rng: random.Random) -> bytes:
    name = rng.choice(tuple(files))
    content = files[name]
    if name.endswith(".json"):
      content = _faulty_json(rng, json.loads(content))
    elif name == reporting.METRICS:
      content = b"\n".join(_faulty_row(rng, line) for line in content.split(b"\n"))
    elif name.endswith(".csv"):
      content = _faulty_table(rng, content.decode())
    elif name == results.PREDICTIONS:
      content = _faulty_picture(rng)
    else:
      names = [rng.choice((*_NAMES, _MARK, "", "\r", "\0", "\udcff", "a" * 9999)) for _ in range(3)]
      content = "\n".join(names).encode("utf-8", "surrogateescape")
    return name.encode() + b"\n" + content

  tokens = (
    *(b"{", b"[", b"[" * 3000, b'"', b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"\xff"),
    *(b",", b'{"step"', _MARK.encode(), b"\n"),
  )
  return target.Target(seeds, build, _check, tokens, _MEMORY)


@functools.cache
def _files() -> dict[str, bytes]:
  """Returns {name: content} of the files of a finished run of three classes."""
  request = quickstart.get_config()
  config = run_config.prepare(request)[0]
  environment = {
    "started": "2026-11-22T08:51:09+00:00",
    "machine": "Linux x86_64, 2 cores",
    "device": "cpu",
    "num_devices": 1,
    "commit": None,
    "data": "digits 1",
    "packages": {"jax": "0.10.2"},
    "variables": {"XLA_FLAGS": None},
    "order": 1,
    "resumed": [{"started": "2026-11-22", "machine": "x", "changed": {"jax": "0.10.1"}}],
  }
  result = {
    "loss": 1.5,
    "top1": 0.5,
    "num_train": 20,
    "num_test": 6,
    "steps": 100,
    "seconds": 23.5,
    "images_per_second": 272.0,
    "left_out": {"small images": 3},
    "warnings": ["The data are old."],
  }
  rows = [
    {"step": 50 * i, "kind": kind, "loss": 1 / i, "top1": 0.3, "images_per_second": 9.0 * i}
    for i in (1, 2)
    for kind in ("train", "eval")
  ]
  classes = ["class,training_images,evaluated_images,top1", "cat,7,2,0.5", "dog,7,2,1.0"]
  matrix = ["class \\ predicted,cat,dog,x", "cat,1,1,0", "dog,0,2,0", "x,1,1,0"]
  wrong = ["image,label,predicted,confidence", "a.png,cat,dog,0.9", "b.png,x,cat,0.5"]
  return {
    run_folder.CONFIG: json.dumps(config.to_dict()).encode(),
    run_folder.ENVIRONMENT: json.dumps(environment).encode(),
    run_folder.RESULT: json.dumps(result).encode(),
    reporting.METRICS: "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
    per_class.PER_CLASS: "\n".join([*classes, "x,7,2,0.0\n"]).encode(),
    per_class.CONFUSION: "\n".join(matrix).encode(),
    mistakes.TABLE: "\n".join(wrong).encode(),
    run_folder.CLASSES: "".join(f"{name}\n" for name in _NAMES).encode(),
    results.PREDICTIONS: _picture("PNG", json.dumps(_KEPT["tiles"])),
  }


def _picture(kind: str, tiles: str, side: int = 8) -> bytes:
  info = PngImagePlugin.PngInfo()
  info.add_text(plots.TILES, tiles)
  file = io.BytesIO()
  Image.new("RGB", (side, side), "red").save(file, kind, pnginfo=info)
  return file.getvalue()


def _faulty_picture(rng: random.Random) -> bytes:
  boxes = (*_VALUES, [0, 0, 4, 4], [0, 0, 4, 4.5], [0, 0, 10**400, 4], ["1", 0, 4, 4])
  tiles: Any = [
    {"box": rng.choice(boxes), "caption": rng.choice(_VALUES)} for _ in range(rng.randrange(3))
  ]
  text = rng.choice((json.dumps(tiles), json.dumps(rng.choice(_VALUES)), "[" * 3000, "NaN"))
  kind = rng.choice(("PNG", "PNG", "PNG", "JPEG", "GIF", "EPS", "TIFF", "PDF"))
  return mutation.mutated(rng, _picture(kind, text)) if rng.random() < 0.3 else _picture(kind, text)


def _faulty_json(rng: random.Random, found: dict[str, Any]) -> bytes:
  for _ in range(rng.randrange(1, 4)):
    name = rng.choice((*found, "order", "checkpoint", "resumed", "new", _MARK))
    found[name] = rng.choice(_VALUES)
  text = json.dumps(found)
  match rng.randrange(6):
    case 0:
      depth = rng.choice((300, 900, 2000, 200_000))
      text = text[:-1] + f', "{rng.choice(tuple(found))}": ' + "[" * depth + "]" * depth + "}"
    case 1:
      text = text[:-1] + "," + text[1:]  # every key twice
    case 2:
      text = json.dumps(rng.choice(_VALUES))
  return text.encode("utf-8", "surrogatepass")


def _faulty_row(rng: random.Random, line: bytes) -> bytes:
  if not line or rng.random() < 0.5:
    return line
  row = json.loads(line)
  row[rng.choice((*row, "learning_rate", "input_wait_share"))] = rng.choice(_VALUES)
  return json.dumps(row).encode()


def _faulty_table(rng: random.Random, text: str) -> bytes:
  rows = [line.split(",") for line in text.split("\n")]
  for _ in range(rng.randrange(1, 4)):
    row = rng.choice(rows)
    cell = rng.choice((*map(str, _VALUES), "1_0", "٣", "9" * 5000, "NaN", "-0", "9007199254740991"))
    row[rng.randrange(len(row))] = '"' + cell.replace('"', '""') + '"'
  return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


class _Page(html.parser.HTMLParser):
  """Fails at an element or an attribute that came from a file's text."""

  def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
    """Checks the start of an element."""
    assert tag != "zzz"
    assert not [name for name, _ in attributes if name.startswith("on")], tag
    remote = [v for name, v in attributes if name in ("src", "href") and v]
    assert all(v.startswith(("data:", "#")) for v in remote), remote


@functools.cache
def _prepare(folder: pathlib.Path) -> pathlib.Path:
  """Writes the folder of the finished run; returns a copy of its network."""
  run = folder / "run"
  run.mkdir()
  released = networks.load("R14x0.5-CIFAR100").params
  head = {"kernel": np.zeros((1, 1, 1024, 3)), "bias": np.zeros(3)}
  weights.save(run / run_folder.WEIGHTS, {**released, "head": {"conv2d": head}})
  return run


def _check(data: bytes, folder: pathlib.Path) -> bool:
  run = _prepare(folder)
  name, _, content = data.partition(b"\n")
  files: Mapping[str, bytes] = _files()
  changed = name.decode("latin-1")
  if changed not in files:
    changed = run_folder.CONFIG
  for file, true in files.items():
    (run / file).write_bytes(content if file == changed else true)
  page = run_page.write(run, folder / "report.html").read_text("utf-8")
  if "zzz" in page:
    reader = _Page()
    reader.feed(page)
    reader.close()
  assert sorted(p.name for p in folder.iterdir()) == ["report.html", "run"]
  if changed == run_folder.RESULT:
    result = run_folder.finished(run)
    if result:
      run_folder.require_complete(run, result)
  elif changed == run_folder.ENVIRONMENT:
    run_folder.order_version(run)
    run_folder.require_data(run, "digits 1", None)
    environment = json.loads(files[changed]) | {"dtype": None}
    run_folder.record_environment(run, environment)
  elif changed in (run_folder.CONFIG, run_folder.CLASSES):
    network = networks.load(str(run))
    assert len(network.class_names) == 3
    assert network.size > 0
    if network.config is not None:
      config = json.loads(files[run_folder.CONFIG])
      run_folder.record_config(run, config, run_config.identity)
  return True
