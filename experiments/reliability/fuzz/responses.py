"""Responses of a server that sends a file to download: whatever it likes.

An input is what the server sends on each connection, one after another, separated by a line of
dashes; then it sends the last one again. `{HOST}` in it is the server itself.
"""

import functools
import gzip
import pathlib
import random
import socket
import threading

from bit_jax.weights import download
from experiments.reliability.fuzz import target

_NEXT = b"\n----------\n"
_BODY = bytes(range(256)) * 4
_LIMIT = 1 << 16  # bytes of the file at most
_STATUSES = (
  *(b"200 OK", b"206 Partial Content", b"301 Moved", b"302 Found", b"307 Again", b"404 Not Found"),
  *(
    b"416 Range",
    b"429 Slow",
    b"500 Error",
    b"204 No Content",
    b"100 Continue",
    b"999 ?",
    b"x",
    b"",
  ),
)
_PLACES = (
  *(b"http://{HOST}/b", b"/b", b"file:///etc/passwd", b"ftp://{HOST}/b", b"https://{HOST}/b", b""),
  *(b"http://[::1", b"//", b"http://{HOST}:99999/", b"javascript:1", b"http://user:x@{HOST}/b"),
  *(b"\xff\xfe", b"http://\xff/"),
)
_LENGTHS = (b"1024", b"0", b"1023", b"1025", b"-1", b"x", b"9" * 30, b"1024, 5", b"1_0", b"65537")


def files() -> target.Target:
  """Returns responses."""
  seeds = [
    _response(b"200 OK", [(b"Content-Length", b"1024"), (b"ETag", b'"1"')]),
    _response(b"200 OK", [(b"Content-Length", b"1024"), (b"ETag", b'"1"')], _BODY[:500])
    + _NEXT
    + _response(
      b"206 Partial Content",
      [(b"Content-Length", b"524"), (b"Content-Range", b"bytes 500-1023/1024"), (b"ETag", b'"1"')],
      _BODY[500:],
    ),
    _response(b"302 Found", [(b"Location", b"http://{HOST}/b")], b"")
    + _NEXT
    + _response(
      b"200 OK", [(b"Transfer-Encoding", b"chunked")], b"400\r\n" + _BODY + b"\r\n0\r\n\r\n"
    ),
    _response(b"200 OK", [(b"Content-Encoding", b"gzip")], gzip.compress(bytes(10**7))),
  ]

  def build(rng: random.Random) -> bytes:
    return _NEXT.join(_faulty(rng) for _ in range(rng.randrange(1, 4)))

  tokens = (b"\r\n", b"Content-Length: ", b"Location: ", b"Content-Encoding: gzip\r\n", b"\0", b"9")
  return target.Target(
    seeds, build, _check, (*tokens, _NEXT, b"ETag: ", b"Last-Modified: \xff\r\n")
  )


def _response(
  status: bytes,
  headers: list[tuple[bytes, bytes]],
  body: bytes = _BODY,
  version: bytes = b"HTTP/1.1",
) -> bytes:
  lines = [version + b" " + status, *(name + b": " + value for name, value in headers)]
  return b"\r\n".join((*lines, b"Connection: close", b"", body))


def _faulty(rng: random.Random) -> bytes:
  choices = [
    (b"Content-Length", rng.choice(_LENGTHS)),
    (
      b"Content-Range",
      rng.choice((b"bytes 0-1023/1024", b"bytes 500-1023/1024", b"bytes */500", b"x")),
    ),
    (b"Location", rng.choice(_PLACES)),
    (
      b"Content-Encoding",
      rng.choice((b"gzip", b"deflate", b"br", b"gzip, gzip", b"identity", b"x")),
    ),
    (b"Transfer-Encoding", rng.choice((b"chunked", b"gzip, chunked", b"x"))),
    (b"ETag", rng.choice((b'"1"', b'W/"1"', b"\xff", b"a" * 70_000, b""))),
    (b"Last-Modified", rng.choice((b"now", b"\xe9"))),
    (b"Retry-After", b"1000000"),
  ]
  headers = [pair for pair in choices if rng.random() < 0.35]
  chunked = (
    b"400\r\n" + _BODY + b"\r\n" + rng.choice((b"0\r\n\r\n", b"fffffffff\r\n", b"-1\r\n", b""))
  )
  bodies = (
    _BODY,
    _BODY[:500],
    b"",
    chunked,
    bytes(200_000),
    gzip.compress(bytes(10**7)),
    b"<html>",
  )
  status = rng.choice((b"200 OK", b"200 OK", b"206 Partial Content", *_STATUSES))
  version = rng.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"ICY", b""))
  return _response(status, headers, rng.choice(bodies), version)


class _Server:
  """A server that sends the parts of an input.

  Attributes:
    parts: What it sends on the coming connections; the last one stays.
  """

  def __init__(self) -> None:
    """Starts it, on a free port of this machine."""
    self.parts = [b""]
    self._socket = socket.create_server(("127.0.0.1", 0))
    self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
    threading.Thread(target=self._serve, daemon=True).start()

  def _serve(self) -> None:
    while True:
      connection, _ = self._socket.accept()
      with connection:
        connection.settimeout(5)
        try:
          while (request := connection.recv(1 << 16)) and b"\r\n\r\n" not in request:
            pass
          part = self.parts.pop(0) if len(self.parts) > 1 else self.parts[0]
          connection.sendall(part.replace(b"{HOST}", self.host.encode()))
        except OSError:
          pass  # the client has left


@functools.cache
def _server() -> _Server:
  return _Server()


def _check(data: bytes, folder: pathlib.Path) -> bool:
  download.RETRY_DELAYS = (0.0, 0.0)
  download.TIMEOUT = (2, 2)
  server, part = _server(), folder / "file.part"
  server.parts = data.split(_NEXT)
  try:
    download.download(f"http://{server.host}/a", part, _LIMIT)
    return True
  finally:
    assert {p.name for p in folder.iterdir()} <= {"file.part", "file.part.version"}
    assert not part.exists() or part.stat().st_size <= _LIMIT
    download.discard(part)
