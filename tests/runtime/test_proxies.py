"""Proxies: which one is used, and that a message names it, with its variable, without password."""

import http.server
import importlib.util
import os
import threading

import pytest

from bit_jax.runtime import proxies
from bit_jax.weights import download

HTTPS, HTTP = "https://storage.test/x", "http://storage.test/x"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
  monkeypatch.setattr(download, "RETRY_DELAYS", ())
  for name in os.environ:
    if name.lower().endswith("_proxy"):
      monkeypatch.delenv(name)


class Refusing(http.server.BaseHTTPRequestHandler):
  """A proxy that answers everything with the server's `status`."""

  def log_message(self, *_):
    pass

  def do_GET(self):
    self.send_response(self.server.status)
    self.send_header("Content-Length", "0")
    self.end_headers()

  def do_CONNECT(self):
    self.do_GET()


@pytest.fixture
def refusing():
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


def message(url, folder):
  with pytest.raises(download.DownloadError) as e:
    download.download(url, folder / "x.part", 10**9)
  return str(e.value)


@pytest.mark.parametrize("url", [HTTPS, HTTP])
def test_a_socks_proxy_without_its_package(url, tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  monkeypatch.setenv("ALL_PROXY", "socks5h://me:secret@127.0.0.1:1080")
  assert message(url, tmp_path) == (
    "the proxy socks5h://127.0.0.1:1080 (from ALL_PROXY) needs a package: pip install "
    "'requests[socks]', or unset ALL_PROXY"
  )


@pytest.mark.parametrize(
  ("url", "variable"),
  [(HTTPS, "https_proxy"), (HTTPS, "HTTPS_PROXY"), (HTTPS, "all_proxy"), (HTTP, "HTTP_PROXY")],
)
def test_a_dead_proxy(url, variable, tmp_path, monkeypatch):
  monkeypatch.setenv(variable, "http://me:sec/r@et@127.0.0.1:9")  # nothing listens there
  assert "sec" not in message(url, tmp_path)
  monkeypatch.setenv(variable, "127.0.0.1:9")
  assert message(url, tmp_path) == (
    f"the connection through the proxy 127.0.0.1:9 (from {variable}) failed after 0 bytes "
    f"(Connection refused): correct {variable} (http://USER:PASSWORD@HOST:PORT), unset it, or add "
    f"storage.test to NO_PROXY"
  )


@pytest.mark.parametrize("url", [HTTPS, HTTP])
@pytest.mark.parametrize(
  ("status", "said"),
  [
    (407, "407 Proxy Authentication Required"),
    (403, "403 Forbidden"),
  ],
)
def test_a_proxy_that_refuses(url, status, said, refusing, tmp_path, monkeypatch):
  refusing.status = status
  monkeypatch.setenv("ALL_PROXY", f"http://me:secret@127.0.0.1:{refusing.server_port}")
  text = message(url, tmp_path)
  assert f"the proxy http://127.0.0.1:{refusing.server_port} (from ALL_PROXY)" in text
  assert said in text
  assert "secret" not in text
  if status == 407:
    assert "correct ALL_PROXY (http://USER:PASSWORD@HOST:PORT)" in text


@pytest.mark.parametrize(
  "value",
  [
    *("http://", "http://127.0.0.1:port", "http:/127.0.0.1:9", "foo bar", "http://[::1"),
    *("ftp://127.0.0.1:21", "socks9://127.0.0.1:9", "://127.0.0.1"),
  ],
)
def test_what_is_no_proxy_url(value, tmp_path, monkeypatch):
  monkeypatch.setenv("HTTPS_PROXY", value)
  assert message(HTTPS, tmp_path) == (
    f"the proxy {value} (from HTTPS_PROXY) is not a valid URL: correct HTTPS_PROXY "
    f"(http://USER:PASSWORD@HOST:PORT), unset it, or add storage.test to NO_PROXY"
  )


def test_which_proxy_is_used(monkeypatch):
  monkeypatch.setenv("ALL_PROXY", "http://all:1")
  monkeypatch.setenv("https_proxy", "https://own")
  found = proxies.find(HTTPS)
  assert (found.variable, found.address, found.fault) == ("https_proxy", ("own", 443), None)
  assert proxies.find(HTTP).address == ("all", 1)
  monkeypatch.setenv("NO_PROXY", "storage.test")
  assert proxies.find(HTTPS) is None


def test_certificates_that_are_not_there(refusing, tmp_path, monkeypatch):
  refusing.status = 200
  url = f"https://127.0.0.1:{refusing.server_port}/x"
  assert "SSL" in message(url, tmp_path)
  monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
  text = message(url, tmp_path)
  assert str(tmp_path / "none.pem") in text
  assert text.endswith("correct or unset REQUESTS_CA_BUNDLE")


@pytest.mark.parametrize(
  ("url", "shown"),
  [
    ("https://me:secret@host/a@b", "https://host/a@b"),
    ("https://host/a", "https://host/a"),
    ("me:secret@host", "host"),
  ],
)
def test_a_password_is_not_shown(url, shown):
  assert proxies.without_password(url) == shown
