"""HTTP download of one file: resumed when interrupted, retried, within limits of size and time.

The bytes go to a `.part` file, which stays when a download fails. A file beside it records the
server's version (its ETag or date), so that a later download resumes and never joins two versions.
A server is believed nothing: it can't redirect to another scheme or away from TLS, send more than
the file can have, compress, or keep the client waiting for long. Who calls checks the content.
HTTP: RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
"""

import errno
import pathlib
import re
import shutil
import time
import urllib.parse
from collections.abc import Mapping

import requests
import tqdm
import urllib3
from requests import codes

from bit_jax.runtime import phrases, proxies
from bit_jax.weights import header_time

# Seconds to connect; for the headers of a response, and then between two packets.
TIMEOUT: tuple[float, float] = (10, 60)
# Seconds before each attempt that follows no progress.
RETRY_DELAYS: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
_CHUNK_BYTES = 1 << 16  # what is read at once, and less is no progress
_SLOWEST, _WINDOW = 1_000, 60.0  # bytes a second, over so many seconds
_MOST_REDIRECTS = 10
_LONGEST_TEXT = 100  # characters of a server's own words that are shown
_STRONG_ETAG, _DATE = re.compile(r'"[!#-~]{0,200}"'), re.compile(r"[\w ,:+-]{0,60}", re.ASCII)

# Errors that another attempt would meet again; a ValueError is an invalid URL or redirection.
_FINAL = (
  ValueError,
  requests.ConnectTimeout,
  requests.exceptions.SSLError,
)


class DownloadError(Exception):
  """A download that failed for good; its message says why, without the URL."""


class _Session(requests.Session):
  """A session that leaves redirections alone: requests would read their bodies, of any length."""

  def __init__(self) -> None:
    super().__init__()
    for scheme in ("http://", "https://"):
      self.mount(scheme, header_time.Adapter())

  def get_redirect_target(self, resp: requests.Response) -> str | None:
    """Returns None, for no redirection; `_response` follows it."""
    del resp
    return None


class _Cut(Exception):  # noqa: N818
  """A connection that broke off, worth another attempt."""


def download(url: str, part: pathlib.Path, most: int) -> None:
  """Downloads `url` to `part`, resuming after the bytes that `part` holds; shows a progress bar.

  Args:
    url: The source.
    part: The file to write; its folder exists.
    most: Bytes that the file can have.

  Raises:
    DownloadError: The server refuses, can't be reached, keeps breaking off, sends something else,
      or the disk is full.
  """
  try:
    proxy = proxies.find(url)
  except ValueError as e:
    raise DownloadError(f"not a valid URL ({e})") from e
  if not url.lower().startswith(("http://", "https://")):
    raise DownloadError("not an http:// or https:// URL")
  if proxy and proxy.fault:
    raise DownloadError(proxy.fault)
  reached, failures = _size(part), 0
  with _Session() as session:
    while True:
      try:
        return _attempt(session, url, proxy, part, most)
      except _Cut as e:
        if _size(part) >= reached + _CHUNK_BYTES:
          reached, failures = _size(part), 0
        if failures == len(RETRY_DELAYS):
          raise DownloadError(str(e)) from e
        time.sleep(RETRY_DELAYS[failures])
        failures += 1


def discard(part: pathlib.Path) -> None:
  """Deletes a partial file and its version file, as far as they exist."""
  part.unlink(missing_ok=True)
  _version_file(part).unlink(missing_ok=True)


def reason(error: BaseException) -> str:
  """Returns the message of the system or the proxy that caused a failed connection."""
  while cause := error.__cause__ or error.__context__:
    error = cause
  text = (error.strerror if isinstance(error, OSError) else None) or str(error)
  return _shown(text.splitlines()[0]).rstrip(".") if text else type(error).__name__


def _attempt(
  session: requests.Session, url: str, proxy: proxies.Proxy | None, part: pathlib.Path, most: int
) -> None:
  offset = _size(part)
  headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the file's own bytes
  if offset:
    headers["Range"] = f"bytes={offset}-"
    if _size(_version_file(part)):
      headers["If-Range"] = _version_file(part).read_text(encoding="utf-8")
  through = f" through {proxy}" if proxy else ""
  remedy = f": {proxy.remedy}" if proxy else ""
  try:
    with _response(session, url, headers) as response:
      status, sent = response.status_code, response.headers.get("Content-Range", "")
      if status == codes.requested_range_not_satisfiable and sent == f"bytes */{offset}":
        return  # the part is the whole file already
      if status == codes.requested_range_not_satisfiable or (
        status == codes.partial_content and not sent.startswith(f"bytes {offset}-")
      ):
        discard(part)  # it belongs to another file
        raise _Cut("the server doesn't resume the partial file")
      if status not in (codes.ok, codes.partial_content):
        final = status < 500 and status != codes.too_many_requests
        advice = remedy if status == codes.proxy_authentication_required else ""
        raise (DownloadError if final else _Cut)(
          f"the server returned {status} {_shown(response.reason)}{through}{advice}"
        )
      # With status 200 the server ignores ranges, or the file has changed.
      _receive(response, part, offset if status == codes.partial_content else 0, most)
  except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as e:
    why = reason(e)
    if isinstance(e, requests.exceptions.SSLError):
      remedy = ": if your network has its own certificates, set REQUESTS_CA_BUNDLE to their file"
    final = isinstance(e, _FINAL) or "Tunnel connection failed" in why  # the proxy refuses
    raise (DownloadError if final else _Cut)(
      f"the connection{through} failed after {_size(part):,} bytes ({why}){remedy}"
    ) from e
  except OSError as e:
    if e.errno is None:  # requests looks for the certificates before it connects
      raise DownloadError(f"{str(e).rstrip('.')}: correct or unset REQUESTS_CA_BUNDLE") from e
    raise DownloadError(f"{part} can't be written ({e.strerror})") from e


def _response(session: requests.Session, url: str, headers: Mapping[str, str]) -> requests.Response:
  """Returns the response, after redirections, whose bodies are not read."""
  for _ in range(_MOST_REDIRECTS):
    response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    if not response.is_redirect:
      return response
    response.close()
    target = urllib.parse.urljoin(url, response.headers["Location"])
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme not in ("http", "https"):
      raise DownloadError("the server redirects to a URL that is not http:// or https://")
    if scheme == "http" and url.lower().startswith("https:"):
      raise DownloadError("the server redirects from https:// to http://, which anybody can change")
    url = target
  raise DownloadError(f"the server redirects more than {_MOST_REDIRECTS} times")


def _receive(response: requests.Response, part: pathlib.Path, start: int, most: int) -> None:
  """Appends the response to the first `start` bytes of `part`."""
  if response.headers.get("Content-Encoding", "identity").lower() != "identity":
    raise DownloadError("the server compresses the file, which it was asked not to do")
  length = response.headers.get("Content-Length")
  total = start + int(length) if length else None
  if total is not None and total > most:
    raise DownloadError(_too_large(most))
  free = shutil.disk_usage(part.parent).free
  if length and int(length) > free:
    need, room = phrases.file_size(int(length)), phrases.file_size(free)
    raise OSError(errno.ENOSPC, f"it needs {need} in {part.parent}, and {room} are free")
  etag, date = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
  # If-Range compares strongly.
  version = etag if _STRONG_ETAG.fullmatch(etag) else date if _DATE.fullmatch(date) else ""
  _version_file(part).write_text(version, encoding="utf-8")
  # Else urllib3 discards the bytes received before an interruption; the length is checked below.
  response.raw.enforce_content_length = False
  with (
    part.open("r+b" if start else "wb") as file,
    tqdm.tqdm(
      desc=part.name.removesuffix(".part"), total=total, initial=start, unit="B", unit_scale=True
    ) as bar,
  ):
    file.seek(start)
    file.truncate()
    began, received, left = time.monotonic(), 0, most - start
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
      left -= len(chunk)
      if left < 0:
        raise DownloadError(_too_large(most))
      file.write(chunk)
      bar.update(len(chunk))
      received += len(chunk)
      if (seconds := time.monotonic() - began) >= _WINDOW:
        if received < _SLOWEST * seconds:
          raise _Cut(f"the server sends less than {phrases.file_size(_SLOWEST)} a second")
        began, received = time.monotonic(), 0
  if total is not None and _size(part) != total:
    raise _Cut(f"received {_size(part):,} of {total:,} bytes")


def _too_large(most: int) -> str:
  return f"the server sends more than {phrases.file_size(most)}, which the file can't have"


def _shown(text: str) -> str:
  """Returns a server's words, without characters that may control a terminal."""
  return "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_TEXT])


def _version_file(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f"{part.name}.version")


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0
