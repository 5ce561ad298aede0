"""Names to files: paths, the cache, and downloads from a local server that misbehaves."""

import errno
import fcntl
import http.server
import io
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import cache, errors, phrases
from bit_jax.weights import catalogue, download, fetch

NAME = "toy"
FILE = "vtab/toy.npz"


def npz_bytes(num_classes=10):
  shapes = architectures.parameter_shapes(architectures.find("R14x0.5"), num_classes)
  rng = np.random.default_rng(0)
  buffer = io.BytesIO()
  np.savez(buffer, **{f"resnet/{k}": rng.standard_normal(s, np.float32) for k, s in shapes.items()})
  return buffer.getvalue()


GOOD = npz_bytes()


class Server(http.server.ThreadingHTTPServer):
  """Serves `content` at every path; attributes make it misbehave. `requests` are remembered."""

  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.content = GOOD
    self.etag = '"v1"'
    self.ranges = True
    self.cuts = []  # bytes of the body after which each coming response is cut off
    self.statuses = []  # statuses of the coming responses
    self.content_length = None  # announced in place of the true one
    self.delay = 0.0
    self.requests = []

  @property
  def url(self):
    return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_GET(self):
    server = self.server
    server.requests.append((self.path, dict(self.headers)))
    if server.statuses:
      self.send_response(server.statuses.pop(0))
      self.send_header("Content-Length", "0")
      self.end_headers()
      return
    time.sleep(server.delay)
    start, status = self.range_start()
    if start > 0 and start >= len(server.content):
      self.send_response(416)
      self.send_header("Content-Range", f"bytes */{len(server.content)}")
      self.send_header("Content-Length", "0")
      self.end_headers()
      return
    body = server.content[start:]
    self.send_response(status)
    if status == 206:
      total = len(server.content)
      self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
    if server.etag:
      self.send_header("ETag", server.etag)
    self.send_header("Content-Length", str(server.content_length or len(body)))
    self.end_headers()
    self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

  def range_start(self):
    wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
    if not wanted or not self.server.ranges or version not in (None, self.server.etag):
      return 0, 200
    return int(wanted.removeprefix("bytes=").rstrip("-")), 206


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.delenv("BIT_JAX_MIRRORS", raising=False)
  monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0))
  toy = catalogue.Checkpoint(NAME, "R14x0.5", 10, "cifar10", FILE, "a test")
  monkeypatch.setitem(catalogue.CATALOGUE, NAME, toy)


@pytest.fixture
def server(monkeypatch):
  with Server() as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(catalogue, "BASE_URL", f"{server.url}/")
    yield server
    server.shutdown()


def resolve(**kwargs):
  return weights.resolve(NAME, **kwargs)


def refused(match, **kwargs):
  with pytest.raises(errors.UserError, match=match) as e:
    resolve(**kwargs)
  return str(e.value)


def part():
  return cache.directory() / f"{FILE}.part"


def test_downloads_once(server):
  path = resolve()
  assert path == cache.directory() / FILE
  assert path.read_bytes() == GOOD
  assert resolve() == path
  assert [p for p, _ in server.requests] == [f"/{FILE}"]
  assert sorted(p.name for p in path.parent.iterdir()) == ["toy.npz", "toy.npz.lock"]


def test_progress_goes_to_stderr(server, capsys):
  resolve()
  out, err = capsys.readouterr()
  assert (out, "toy.npz: 100%" in err) == ("", True)


def test_cut_connections_are_resumed(server):
  server.cuts = [1000, 500_000, 0, 70_000, 0]
  assert resolve().read_bytes() == GOOD
  starts = [h.get("Range") for _, h in server.requests]
  assert starts[:3] == [None, "bytes=1000-", "bytes=501000-"]
  assert server.requests[1][1]["If-Range"] == '"v1"'


def test_a_connection_that_keeps_breaking_gives_up_and_keeps_the_part(server):
  server.cuts = [1000, *[0] * 9]
  refused("1,000 of [0-9,]+ bytes")
  assert part().read_bytes() == GOOD[:1000]
  server.cuts = []
  assert resolve().read_bytes() == GOOD
  assert server.requests[-1][1]["Range"] == "bytes=1000-"


def test_a_server_that_ignores_ranges_starts_anew(server):
  server.ranges = False
  server.cuts = [1000, 2000]
  assert resolve().read_bytes() == GOOD


def test_a_file_changed_between_two_attempts_is_not_joined(server):
  part().parent.mkdir(parents=True)
  part().write_bytes(b"x" * 1000)
  part().with_name("toy.npz.part.version").write_text('"v0"')
  assert resolve().read_bytes() == GOOD
  assert server.requests[0][1]["If-Range"] == '"v0"'


@pytest.mark.parametrize("extra", [0, 50])
def test_a_part_as_long_as_the_file_or_longer(server, extra):
  part().parent.mkdir(parents=True)
  part().write_bytes(GOOD + b"x" * extra)
  assert resolve().read_bytes() == GOOD


def test_busy_server_is_asked_again(server):
  server.statuses = [503, 429]
  assert resolve().read_bytes() == GOOD


@pytest.mark.parametrize("status", [404, 403])
def test_refusal_is_final_and_says_what_to_do(server, status):
  server.statuses = [status] * 9
  message = refused(f"returned {status}")
  assert len(server.requests) == 1
  assert f"{server.url}/{FILE} on another machine" in message
  for fact in (str(cache.directory() / FILE), "$BIT_JAX_MIRRORS", "quickstart", "model=R14x0.5"):
    assert fact in message


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    (b"<html>login</html>" * 1000, "is neither an .npz"),
    (GOOD[:-100], "is truncated or damaged"),
    (GOOD[:90_000] + b"\x00\x01\x02\x03" + GOOD[90_004:], "damaged|NaN"),
    (
      npz_bytes(11),
      r"head/conv2d/kernel is float32 \(1, 1, 1024, 11\) and not float \(1, 1, 1024, 10\)",
    ),
  ],
)
def test_wrong_bytes_are_deleted_and_said(server, content, reason):
  server.content = content
  refused(rf"a wrong file, which was deleted \(.*({reason})")
  assert [p.name for p in (cache.directory() / "vtab").iterdir()] == ["toy.npz.lock"]


def test_announced_length_too_short(server):
  server.content_length = 5000
  refused("a wrong file, which was deleted .*truncated")


def test_announced_length_too_long(server):
  server.content_length = len(GOOD) + 5000
  assert resolve().read_bytes() == GOOD
  assert server.requests[-1][1]["Range"] == f"bytes={len(GOOD)}-"


def test_mirrors_come_first_and_in_order(server, monkeypatch):
  monkeypatch.setenv("BIT_JAX_MIRRORS", f"{server.url}/b/, {server.url}/c")
  server.statuses = [404, 404]
  assert resolve(mirrors=[f"{server.url}/a"]).read_bytes() == GOOD
  assert [p for p, _ in server.requests] == [f"/{m}/{FILE}" for m in "abc"]


@pytest.mark.parametrize(
  ("mirror", "reason"),
  [
    ("nonsense", "not an http:// or https:// URL"),
    ("ftp://x", "not an http:// or https:// URL"),
    ("http://[", "not a valid URL"),
    ("http://.x", "invalid label"),
  ],
)
def test_a_bad_mirror_is_named_and_passed_over(server, mirror, reason):
  assert resolve(mirrors=[mirror]).read_bytes() == GOOD
  (cache.directory() / FILE).unlink()
  server.statuses = [404]
  refused(f"{re.escape(mirror)}.*{reason}", mirrors=[mirror])


def test_no_network(monkeypatch):
  monkeypatch.setattr(catalogue, "BASE_URL", "http://127.0.0.1:9/")  # nothing listens there
  message = refused("the connection failed")
  assert str(cache.directory() / FILE) in message
  assert "configs/quickstart.py" in message


def test_no_room_on_the_disk(server, monkeypatch):
  free = os.statvfs_result((4096, 4096, 9, 1, 1, 9, 9, 9, 0, 255))
  monkeypatch.setattr(os, "statvfs", lambda _: free)
  refused(rf"needs {re.escape(phrases.file_size(len(GOOD)))} in .*, and 4\.1 kB are free")


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  refused(r"can't be written .*\$BIT_JAX_CACHE")


def test_two_at_once_download_once(server, capsys):
  server.delay = 0.5
  paths = []
  threads = [threading.Thread(target=lambda: paths.append(resolve())) for _ in range(3)]
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  assert paths == [cache.directory() / FILE] * 3
  assert len(server.requests) == 1
  assert "Waiting for another process" in capsys.readouterr().err


def test_a_cache_without_locks(server, monkeypatch, capsys):
  def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", flock)
  assert resolve().read_bytes() == GOOD
  assert capsys.readouterr().err.count("has no file locks (No locks available)") == 1


def test_a_killed_download_is_taken_up_by_another_process(server):
  server.cuts = [200_000]
  code = (
    "import os, sys; from bit_jax.weights import download;"
    "download.time.sleep = lambda _: os.kill(os.getpid(), 9);"
    "download.download(sys.argv[1], __import__('pathlib').Path(sys.argv[2]), 10**9)"
  )
  part().parent.mkdir(parents=True)
  url = f"{server.url}/{FILE}"
  run = subprocess.run([sys.executable, "-c", code, url, part()], check=False)
  assert run.returncode == -9
  assert resolve().read_bytes() == GOOD
  assert server.requests[-1][1]["Range"] == "bytes=200000-"


def test_file_put_into_the_cache_by_hand():
  for place in (cache.directory() / "toy.npz", cache.directory() / FILE):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(GOOD)
    assert resolve() == place


def test_paths(tmp_path, monkeypatch):
  (tmp_path / "my.npz").write_bytes(GOOD)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert weights.resolve("my.npz") == pathlib.Path("my.npz")
  assert weights.resolve("~/my.npz") == tmp_path / "my.npz"
  with pytest.raises(
    errors.UserError, match=r"toy\.npz doesn't exist or can't be read: .* or toy without \.npz"
  ):
    weights.resolve("toy.npz")
  with pytest.raises(errors.UserError, match="is a folder"):
    weights.resolve("./")


def test_without_home_folder_nothing_is_cached_and_a_download_names_the_variable(server, no_home):
  with pytest.raises(errors.UserError, match=r"No cache directory found\. .*\$BIT_JAX_CACHE"):
    weights.locate(NAME)
  assert fetch.cached(catalogue.CATALOGUE[NAME]) is None
  refused(r"No cache directory found\. The path ~/.*Set \$BIT_JAX_CACHE to a folder")
  assert not server.requests


def test_a_cache_of_nobody_is_told_with_its_variable(server, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", "~no-such-user/cache")
  assert fetch.cached(catalogue.CATALOGUE[NAME]) is None
  refused(r"The path ~no-such-user/cache can't be used.*Set \$BIT_JAX_CACHE to a folder")


def test_a_cache_that_cannot_be_looked_into_holds_nothing(monkeypatch):
  def stat(*_, **__):
    raise PermissionError(13, "Permission denied")

  with monkeypatch.context() as m:
    m.setattr(os, "stat", stat)
    assert fetch.cached(catalogue.CATALOGUE[NAME]) is None
    with pytest.raises(errors.UserError, match=r"/x\.npz doesn't exist or can't be read"):
      weights.locate("/x.npz")


def test_locate_never_downloads(server):
  with pytest.raises(fetch.NotInCacheError, match="weights download toy"):
    weights.locate(NAME)
  assert not server.requests


def test_embedded_checkpoint_is_never_downloaded(server, tmp_path, monkeypatch):
  monkeypatch.setattr(fetch.importlib.resources, "files", lambda _: tmp_path)
  with pytest.raises(errors.UserError, match="comes with bit_jax and is missing"):
    weights.resolve(catalogue.EMBEDDED)
  path = tmp_path / "assets" / "R14x0.5-CIFAR100.npz"
  path.parent.mkdir()
  path.write_bytes(GOOD)
  assert weights.resolve(catalogue.EMBEDDED) == path
  assert not server.requests


def test_load_after_download_hashes_nothing_again(server, monkeypatch):
  path = resolve()
  monkeypatch.setattr(cache.hashlib, "file_digest", None)
  loaded = weights.load(path, architectures.find("R14x0.5"), head="keep", num_classes=10)
  assert loaded.sha256 == cache.hashlib.sha256(GOOD).hexdigest()
