"""Downloads from a server that sends any bytes: what it may not do, and how that ends."""

import socket
import threading
import time

import pytest

from bit_jax.weights import download

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
  """Answers each connection with the next of some byte strings, the last one for ever.

  `slow` follows each of them again and again.
  """

  def __init__(self):
    self.answers, self.requests, self.slow = [b""], [], b""
    self._socket = socket.create_server(("127.0.0.1", 0))
    self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/file"
    threading.Thread(target=self._serve, daemon=True).start()

  def _serve(self):
    while True:
      try:
        connection, _ = self._socket.accept()
      except OSError:
        return  # the test is over
      with connection:
        self.requests.append(connection.recv(1 << 16).partition(b"\r\n")[0])
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
          connection.sendall(answer)
          for chunk in self.endless(answer):
            connection.sendall(chunk)
        except OSError:
          pass  # the client has left

  def endless(self, answer):
    while b"chunked" in answer:
      yield b"400\r\n" + bytes(1024) + b"\r\n"
    while self.slow:
      time.sleep(0.02)
      yield self.slow

  def close(self):
    self._socket.shutdown(socket.SHUT_RDWR)
    self._socket.close()


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0))
  server = Server()
  yield server
  server.close()


def refused(server, tmp_path, match, *answers, most=4096):
  server.answers = list(answers)
  with pytest.raises(download.DownloadError, match=match) as e:
    download.download(server.url, tmp_path / "a.part", most)
  assert {p.name for p in tmp_path.iterdir()} <= {"a.part", "a.part.version"}
  return str(e.value)


def redirect(location):
  return b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n"


def test_redirections_are_followed(server, tmp_path):
  server.answers = [redirect(b"/other"), OK + b"Content-Length: 4\r\n\r\nbody"]
  download.download(server.url, tmp_path / "a.part", 4096)
  assert (tmp_path / "a.part").read_bytes() == b"body"
  assert server.requests == [b"GET /file HTTP/1.1", b"GET /other HTTP/1.1"]


@pytest.mark.parametrize("location", [b"file:///etc/passwd", b"ftp://127.0.0.1/x", b"data:,x"])
def test_other_schemes_are_not_followed(server, tmp_path, location):
  refused(server, tmp_path, "redirects to a URL that is not http", redirect(location))
  assert not list(tmp_path.iterdir())


def test_tls_is_not_left(server, tmp_path, monkeypatch):
  session = download._Session()
  plain = server.url.encode()

  def get(url, **options):
    assert "verify" not in options
    return session.get(server.url, **options)

  server.answers = [redirect(plain)]
  monkeypatch.setattr(download.requests.Session, "get", lambda _, url, **o: get(url, **o))
  monkeypatch.setattr(session, "get", lambda url, **o: session.request("GET", url, **o))
  with pytest.raises(download.DownloadError, match="from https:// to http://"):
    download.download("https://example.org/file", tmp_path / "a.part", 4096)


def test_endless_redirections_end(server, tmp_path):
  refused(server, tmp_path, "redirects more than 10 times", redirect(b"/again"))
  assert len(server.requests) == 10


def test_the_body_of_a_redirection_is_not_read(server, tmp_path):
  # An endless one.
  body = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nTransfer-Encoding: chunked\r\n\r\n"
  refused(server, tmp_path, "redirects more than 10 times", body)


def test_more_than_the_file_can_have_is_not_written(server, tmp_path):
  endless = OK + b"Transfer-Encoding: chunked\r\n\r\n"
  refused(server, tmp_path, r"sends more than 4.1 kB, which the file can't have", endless)
  assert (tmp_path / "a.part").stat().st_size <= 4096
  declared = OK + b"Content-Length: 4097\r\n\r\n"
  download.discard(tmp_path / "a.part")
  refused(server, tmp_path, "sends more than 4.1 kB", declared)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br, gzip"])
def test_compressed_content_is_refused(server, tmp_path, encoding):
  answer = OK + b"Content-Encoding: " + encoding + b"\r\nContent-Length: 4\r\n\r\nbody"
  refused(server, tmp_path, "compresses the file", answer)
  assert not list(tmp_path.iterdir())


def test_a_server_that_sends_a_little_each_time_is_given_up(server, tmp_path):
  answers = [
    OK + b"Content-Length: 100\r\n\r\nx",
    *(
      b"HTTP/1.1 206 Partial\r\nContent-Range: bytes %d-99/100\r\nContent-Length: %d\r\n\r\nx"
      % (i, 100 - i)
      for i in range(1, 90)
    ),
  ]
  refused(server, tmp_path, "received 3 of 100 bytes", *answers)
  assert len(server.requests) == 3


def test_a_slow_server_is_given_up(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "_WINDOW", 0.0)
  monkeypatch.setattr(download, "_SLOWEST", 1e30)
  refused(server, tmp_path, r"sends less than", OK + b"Content-Length: 100\r\n\r\nxxxxx")


@pytest.mark.parametrize(
  ("start", "slow"),
  [
    (b"", b"x"),
    (b"HTTP/1.1 200", b"x"),
    (OK + b"ETag: ", b"x"),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
  ],
)
def test_slow_headers_are_given_up(server, tmp_path, monkeypatch, start, slow):
  monkeypatch.setattr(download, "TIMEOUT", (0.2, 0.2))
  server.slow = slow
  refused(server, tmp_path, r"\(no complete headers within 0.2 s\)", start)
  assert len(server.requests) == 3


def test_slow_headers_of_a_proxy_are_given_up(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "TIMEOUT", (0.2, 60))
  monkeypatch.setenv("https_proxy", server.url.removesuffix("/file"))
  server.url, server.slow = "https://bit.invalid/file", b"x"
  text = refused(server, tmp_path, r"\(no complete headers within 0.2 s\)", OK + b"Via: ")
  assert text.startswith("the connection through ")


def test_a_body_may_take_longer_than_headers(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, "TIMEOUT", (0.2, 0.2))
  server.answers, server.slow = [OK + b"Content-Length: 30\r\n\r\n"], b"x"
  download.download(server.url, tmp_path / "a.part", 4096)
  assert (tmp_path / "a.part").read_bytes() == b"x" * 30


def test_words_of_a_server_control_no_terminal(server, tmp_path):
  text = refused(
    server, tmp_path, "the server returned 404", b"HTTP/1.1 404 \x1b[2J" + b"x" * 500 + b"\r\n\r\n"
  )
  assert text == "the server returned 404 ?[2J" + "x" * 96


@pytest.mark.parametrize("version", [b"ETag: a b", b'ETag: "\xff"', b"Last-Modified: \xe9"])
def test_a_version_that_is_no_header_is_not_kept(server, tmp_path, version):
  rest = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 2-3/4\r\nContent-Length: 2\r\n\r\ndy"
  server.answers = [OK + version + b"\r\nContent-Length: 4\r\n\r\nbo", rest]
  download.download(server.url, tmp_path / "a.part", 4096)
  assert (tmp_path / "a.part").read_bytes() == b"body"


@pytest.mark.parametrize("length", [b"x", b"-5", b"9" * 5000])
def test_a_length_that_is_no_number(server, tmp_path, length):
  answer = OK + b"Content-Length: " + length + b"\r\n\r\nbody"
  refused(server, tmp_path, r".+", answer)
