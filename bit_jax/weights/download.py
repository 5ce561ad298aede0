"""HTTP download of one file: resumed when interrupted, retried, checked for its length.

The bytes go to a `.part` file, which stays when a download fails. A file beside it records the
server's version (its ETag or date), so that a later download resumes and never joins two versions.
HTTP: RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
"""

import errno
import pathlib
import shutil
import time

import requests
import tqdm
from requests import codes

from bit_jax.runtime import phrases, proxies

TIMEOUT = (10, 60)  # seconds to connect, and between two packets
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before each attempt that follows no progress
_CHUNK_BYTES = 1 << 16  # the most that a connection reset can lose

# Errors that another attempt would meet again; a ValueError is an invalid URL or redirection.
_FINAL = (
  ValueError,
  requests.ConnectTimeout,
  requests.exceptions.SSLError,
  requests.TooManyRedirects,
)


class DownloadError(Exception):
  """A download that failed for good; its message says why, without the URL."""


class _Cut(Exception):  # noqa: N818
  """A connection that broke off, worth another attempt."""


def download(url: str, part: pathlib.Path) -> None:
  """Downloads `url` to `part`, resuming after the bytes that `part` holds; shows a progress bar.

  Args:
    url: The source.
    part: The file to write; its folder exists.

  Raises:
    DownloadError: The server refuses, can't be reached, keeps breaking off, or the disk is full.
  """
  try:
    proxy = proxies.find(url)
  except ValueError as e:
    raise DownloadError(f"not a valid URL ({e})") from e
  if not url.lower().startswith(("http://", "https://")):
    raise DownloadError("not an http:// or https:// URL")
  if proxy and proxy.fault:
    raise DownloadError(proxy.fault)
  most, failures = _size(part), 0
  with requests.Session() as session:
    while True:
      try:
        return _attempt(session, url, proxy, part)
      except _Cut as e:
        if _size(part) > most:
          most, failures = _size(part), 0
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
  return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _attempt(
  session: requests.Session, url: str, proxy: proxies.Proxy | None, part: pathlib.Path
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
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
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
          f"the server returned {status} {response.reason}{through}{advice}"
        )
      # With status 200 the server ignores ranges, or the file has changed.
      _receive(response, part, offset if status == codes.partial_content else 0)
  except (requests.RequestException, ValueError) as e:
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


def _receive(response: requests.Response, part: pathlib.Path, start: int) -> None:
  """Appends the response to the first `start` bytes of `part`."""
  length = response.headers.get("Content-Length")
  total = start + int(length) if length else None
  free = shutil.disk_usage(part.parent).free
  if length and int(length) > free:
    need, room = phrases.file_size(int(length)), phrases.file_size(free)
    raise OSError(errno.ENOSPC, f"it needs {need} in {part.parent}, and {room} are free")
  etag = response.headers.get("ETag", "W/")
  # If-Range compares strongly.
  version = response.headers.get("Last-Modified", "") if etag.startswith("W/") else etag
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
    for chunk in response.iter_content(_CHUNK_BYTES):
      file.write(chunk)
      bar.update(len(chunk))
  if total is not None and _size(part) != total:
    raise _Cut(f"received {_size(part):,} of {total:,} bytes")


def _version_file(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f"{part.name}.version")


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0
