"""What the commands that take a network share."""

import dataclasses

import pytest
from PIL import Image

from bit_jax import embed, evaluate, predict
from bit_jax.export import __main__ as export
from bit_jax.inference import command, networks
from bit_jax.probe import __main__ as probe
from bit_jax.runtime import compile_cache, devices, errors, numerics


def test_the_remarks_in_their_order(monkeypatch, capsys):
  monkeypatch.setattr(devices, "remark", lambda: "on devices")
  monkeypatch.setattr(compile_cache, "keep", lambda: "on the cache")
  monkeypatch.setattr(numerics, "ignored", lambda: "on settings")
  network = networks.load("R14x0.5-CIFAR100", size=8)
  command.remark(dataclasses.replace(network, remarks=("a", "b")), None, "on images")
  out, err = capsys.readouterr()
  assert err.splitlines() == ["a", "b", "on devices", "on the cache", "on settings", "on images"]
  assert out == ""


LINES = {
  predict: ["photo.png"],
  embed: ["photo.png", "--out=features.npz"],
  evaluate: ["--path=photos"],
  probe: ["digits"],
  export: ["--to=npz"],
}


@pytest.mark.parametrize("module", LINES, ids=lambda module: module.__name__)
def test_every_command_loads_its_network_here(module, monkeypatch, tmp_path, capsys):
  def load(reference, *, size=None, dtype="auto"):
    raise errors.UserError(f"{reference} at {size} pixels")

  monkeypatch.setattr(command, "load", load)
  monkeypatch.chdir(tmp_path)
  Image.new("RGB", (8, 8)).save("photo.png")
  assert module.main(["mine.npz", *LINES[module], "--size=7"]) == 2
  assert "mine.npz at 7 pixels" in capsys.readouterr().err


def test_labelled_images_on_a_command_line():
  parser = command.parser("name", "What it does.", "")
  command.add_labelled(parser)
  args, words = command.parse_labelled(
    parser, ["--config=a.py:b=1", "run", "--config.crop=3", "--split=val"]
  )
  assert (args.network, args.size, args.path, args.split) == ("run", None, None, "val")
  assert words == ["--config=a.py:b=1", "--config.crop=3"]
  assert command.request([]) is None
  request = command.request(["--config=configs/quickstart.py", "--config.crop=24"])
  assert (request.dataset, request.crop) == ("digits", 24)
