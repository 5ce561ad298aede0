"""timm's checkpoints by name: a local server in place of the hub, its cache, and what can fail."""

import builtins
import hashlib
import http.server
import os
import pathlib
import subprocess
import sys
import threading
import time

import huggingface_hub.constants
import numpy as np
import pytest
import safetensors.numpy

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import cache, errors
from bit_jax.weights import __main__ as command
from bit_jax.weights import catalogue, fetch, layouts

NAME = "timm/toy_bit.goog_test"
FILE = "model.safetensors"


def content(num_classes=10):
  """Returns the bytes of an R14x0.5 as timm would write it."""
  rng = np.random.default_rng(0)
  shapes = architectures.parameter_shapes(architectures.find("R14x0.5"), num_classes)
  arrays = {
    layouts.TIMM.key(k): rng.standard_normal(layouts.TIMM.shape_in_file(s), np.float32)
    for k, s in shapes.items()
  }
  return safetensors.numpy.save(arrays, metadata={"format": "pt"})


GOOD = content()


class Hub(http.server.ThreadingHTTPServer):
  """Serves `content` as the hub does; `status` refuses, `cuts` break the coming responses off."""

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.content = GOOD
    self.etag = hashlib.sha256(GOOD).hexdigest()
    self.status = 200
    self.cuts = []
    self.requests = []

  @property
  def url(self):
    return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_HEAD(self):
    self.respond()

  def do_GET(self):
    self.respond()

  def respond(self):
    hub = self.server
    if "/resolve/" not in self.path:  # the library asks for more than files
      self.send_error(404)
      return
    hub.requests.append((self.command, self.path))
    if hub.status != 200:
      self.send_response(hub.status)
      self.end_headers()
      return
    start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    self.send_response(206 if start else 200)
    self.send_header("X-Repo-Commit", "0" * 40)
    self.send_header("ETag", f'"{hub.etag}"')
    self.send_header("Content-Length", str(len(hub.content) - start))
    self.end_headers()
    if self.command == "GET":
      body = hub.content[start:]
      self.wfile.write(body[: hub.cuts.pop(0)] if hub.cuts else body)


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  constants = huggingface_hub.constants  # read from the environment once, at the import
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
  monkeypatch.setattr(time, "sleep", lambda _: None)  # between the attempts of the library
  toy = catalogue.Checkpoint(NAME, "R14x0.5", 10, "cifar10", FILE, "", "hub", "BiT-M-R50x1")
  monkeypatch.setitem(catalogue.CATALOGUE, NAME, toy)


@pytest.fixture
def hub(monkeypatch):
  with Hub() as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield server
    server.shutdown()


def refused(match, name=NAME):
  with pytest.raises(errors.UserError, match=match) as e:
    weights.resolve(name)
  assert "\n" not in str(e.value)
  return str(e.value)


def test_downloads_once_verifies_and_shares_the_cache(hub, tmp_path, monkeypatch):
  with pytest.raises(fetch.NotInCacheError, match="weights download timm/toy_bit"):
    weights.locate(NAME)
  path = weights.resolve(NAME)
  assert path.read_bytes() == GOOD
  assert path.parents[3] == tmp_path / "hub"
  assert weights.resolve(NAME) == weights.locate(NAME) == path
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  assert weights.resolve(NAME) == path
  assert hub.requests == [(m, f"/{NAME}/resolve/main/{FILE}") for m in ("HEAD", "GET")]
  monkeypatch.setattr(cache.hashlib, "file_digest", None)  # a second reading would fail
  loaded = weights.load(path, architectures.find("R14x0.5"), head="keep", num_classes=10)
  assert loaded.sha256 == hashlib.sha256(GOOD).hexdigest()
  assert weights.class_names(NAME, 10)[0] == weights.class_names(path, 10)[0] == "airplane"


def test_a_broken_connection_is_resumed(hub):
  hub.cuts = [1000, 50_000]
  assert weights.resolve(NAME).read_bytes() == GOOD


def test_a_wrong_length(hub):
  hub.cuts = [1000] * 99
  message = refused("can't be downloaded from http.*received 1000 bytes, expected")
  assert f"{hub.url}/{NAME}/resolve/main/{FILE} on another machine" in message
  for advice in ("$HF_ENDPOINT", "use BiT-M-R50x1, which has the same weights"):
    assert advice in message


@pytest.mark.parametrize("status", [404, 401, 500])
def test_a_refusal(hub, status):
  hub.status = status
  refused(f"the server returned {status}")


def test_no_network(monkeypatch):
  template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"  # nothing listens there
  monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
  refused(r"is not in the cache and can't be downloaded .*\(Connection refused\)")


def test_offline(monkeypatch):
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  refused(r"\(\$HF_HUB_OFFLINE is set\)")


def test_a_wrong_file_is_deleted(hub, tmp_path):
  hub.content = content(11)
  hub.etag = "v2"
  refused(r"sent a wrong file, which was deleted \(.*head.fc.weight is float32 \(11, 1024, 1, 1\)")
  hub.content = GOOD[:-1] + bytes([GOOD[-1] ^ 1])  # no checksum but the hub's
  hub.etag = hashlib.sha256(GOOD).hexdigest()
  refused(r"sent a wrong file, which was deleted \(.*is damaged, as its SHA-256 is")
  assert not [p for p in (tmp_path / "hub").rglob("*") if p.stat().st_size > len(GOOD) // 2]


def test_verify_finds_a_changed_file_in_the_cache(hub, capsys):
  path = weights.resolve(NAME)
  assert command.main(["verify", NAME]) == 0
  assert "ok, R14x0.5, 10 classes" in capsys.readouterr().out
  path.resolve().write_bytes(GOOD[:-1] + bytes([GOOD[-1] ^ 1]))
  assert command.main(["verify", NAME]) == 2
  assert "is damaged, as its SHA-256 is" in capsys.readouterr().err


def test_without_huggingface_hub(monkeypatch):
  original = builtins.__import__

  def importing(name, *args, **kwargs):
    if name == "huggingface_hub.constants":
      raise ImportError(name)
    return original(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", importing)
  refused("huggingface_hub is not installed: run `pip install 'bit_jax.hub.'`, or use BiT-M-R50x1")
  assert fetch.cached(catalogue.find(NAME)) is None


def test_the_catalogue_has_every_bit_of_timm():
  copies = {c.name: c.copy_of for c in catalogue.CATALOGUE.values() if c.copy_of}
  del copies[NAME]
  assert len(copies) == 15
  assert copies["timm/resnetv2_101x3_bit.goog_in21k"] == "BiT-M-R101x3"
  assert copies["timm/resnetv2_152x4_bit.goog_in21k_ft_in1k"] == "BiT-M-R152x4-ILSVRC2012"
  assert copies["timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384"] == "R152x2_T_384"
  for name, copy_of in copies.items():
    ours, copy = catalogue.find(copy_of), catalogue.find(name)
    assert (copy.architecture, copy.num_classes) == (ours.architecture, ours.num_classes)
    assert weights.class_names(name, copy.num_classes) == weights.class_names(
      copy_of, ours.num_classes
    )


def test_list_shows_what_each_equals(capsys):
  assert command.main(["list", "timm/resnetv2_50x1*"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert "the weights of BiT-M-R50x1" in lines[1]
  assert lines[-1].startswith("3 of ")


@pytest.mark.parametrize(
  ("path", "name"),
  [
    ("x/resnetv2_50x1_bit.goog_in21k.safetensors", "timm/resnetv2_50x1_bit.goog_in21k"),
    ("x/resnetv2_50x1_bit.goog_in21k/model.safetensors", "timm/resnetv2_50x1_bit.goog_in21k"),
    (
      "hub/models--timm--resnetv2_50x1_bit.goog_in21k/snapshots/0a1/model.safetensors",
      "timm/resnetv2_50x1_bit.goog_in21k",
    ),
    ("BiT-M-R50x1.npz", "BiT-M-R50x1"),
    ("BiT-M-R50x1.safetensors", None),
    ("model.safetensors", None),
    ("model.npz", None),
  ],
)
def test_files_called_like_a_checkpoint(path, name):
  found = catalogue.of_file(pathlib.Path(path))
  assert (found.name if found else None) == name


def test_paths_and_mistyped_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  refused(r"did you mean timm/resnetv2_50x1_bit\.goog_in21k\?", "timm/resnetv2_50x1_bit.goog_in21")
  refused("did you mean .*timm/resnetv2_50x1_bit.goog_in21k", "resnetv2_50x1_bit.goog_in21k")
  refused("give the path of an .npz or .safetensors file", "none.safetensors")
  (tmp_path / "own.safetensors").write_bytes(GOOD)
  assert weights.resolve("own.safetensors") == pathlib.Path("own.safetensors")


def test_the_environment_decides_on_endpoint_and_cache(hub, tmp_path):
  name = "timm/resnetv2_50x1_bit.goog_in21k"
  hub.content = b"x" * 1000
  hub.etag = "v1"
  environment = {
    **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
    "HF_ENDPOINT": hub.url,
    "HF_HOME": str(tmp_path / "home"),
  }
  run = subprocess.run(
    [sys.executable, "-m", "bit_jax.weights", "download", name],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 2
  assert f"{hub.url} sent a wrong file, which was deleted ({tmp_path / 'home'}" in run.stderr
  assert run.stdout == ""
