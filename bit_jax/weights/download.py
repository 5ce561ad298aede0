"""HTTP download of one file: resumed after a cut, retried, checked for its length.

The bytes go to a `.part` file, which stays when a download fails. A file beside it records the
server's version (its ETag or date), so that a later download resumes and never joins two versions.
HTTP: RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
"""

import pathlib
import re
import shutil
import time

import requests
import tqdm

from bit_jax.runtime import proxies

TIMEOUT = (10, 60)  # seconds to connect, and between two packets
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before each attempt that follows no progress
_CHUNK_BYTES = 1 << 16  # the most that a connection reset can lose


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
  most, failures = _size(part), 0
  with requests.Session() as session:
    while True:
      try:
        return _attempt(session, url, part)
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


def _attempt(session: requests.Session, url: str, part: pathlib.Path) -> None:
  offset = _size(part)
  headers = {"Accept-Encoding": "identity"}  # lengths and ranges count the file's own bytes
  if offset:
    headers["Range"] = f"bytes={offset}-"
    if _version_file(part).is_file():
      headers["If-Range"] = _version_file(part).read_text(encoding="utf-8")
  proxy = _usable_proxy(url)
  through = f" through {proxy}" if proxy else ""
  try:
    with _get(session, url, headers) as response:
      if response.status_code == requests.codes.requested_range_not_satisfiable:
        return _finish_or_restart(response, part, offset)
      if proxy and response.status_code == requests.codes.proxy_authentication_required:
        raise DownloadError(_unauthorised(proxy))
      _receive(response, part, _start(response, offset, through))
  except requests.ConnectTimeout as e:
    raise DownloadError(f"the server doesn't answer{through}") from e
  except requests.exceptions.SSLError as e:
    raise DownloadError(_untrusted(e) + through) from e
  except requests.exceptions.ProxyError as e:
    raise _proxy_failure(proxy, e) from e
  except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as e:
    raise DownloadError("the server redirects to something else than http:// or https://") from e
  except requests.TooManyRedirects as e:
    raise DownloadError(f"the server redirects in a loop{through}") from e
  except (requests.ConnectionError, requests.Timeout) as e:
    failed = f"the connection{through} failed after {_size(part):,} bytes ({proxies.reason(e)})"
    raise _Cut(f"{failed}: {proxy.remedy}" if proxy else failed) from e
  except requests.RequestException as e:
    raise _Cut(f"the transfer broke off after {_size(part):,} bytes") from e
  except OSError as e:
    raise DownloadError(f"{part} can't be written ({e.strerror or e})") from e


def _usable_proxy(url: str) -> proxies.Proxy | None:
  """Returns the proxy for a URL, if there is one.

  Raises:
    DownloadError: The URL or the proxy can't be used.
  """
  if not url.lower().startswith(("http://", "https://")):
    raise DownloadError("not a valid URL" if "://" not in url else "not an http:// or https:// URL")
  try:
    requests.Request("GET", url).prepare()
    proxy = proxies.find(url)
  except (requests.RequestException, ValueError) as e:
    raise DownloadError("not a valid URL") from e
  if proxy and proxy.fault:
    raise DownloadError(proxy.fault)
  return proxy


def _get(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
  try:
    return session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
  except requests.RequestException:
    raise
  except ValueError as e:
    raise DownloadError("not a valid URL") from e
  except OSError as e:  # before it connects, it looks for the certificates
    raise DownloadError(f"{str(e).rstrip('.')}: correct or unset REQUESTS_CA_BUNDLE") from e


def _untrusted(error: requests.exceptions.SSLError) -> str:
  why = proxies.reason(error)
  if "certificate" not in str(error).lower():
    return f"the TLS connection to the server failed ({why})"
  return (
    f"the server's certificate can't be verified ({why}): if your network uses its own "
    f"certificates, set REQUESTS_CA_BUNDLE to the file that holds them"
  )


def _proxy_failure(
  proxy: proxies.Proxy | None, error: requests.exceptions.ProxyError
) -> DownloadError | _Cut:
  why = proxies.reason(error)
  if proxy is None:  # only for the address that the server redirects to
    return DownloadError(f"a proxy can't be reached ({why})")
  if "407" in why:
    return DownloadError(_unauthorised(proxy))
  if "Tunnel connection failed" in why:
    return DownloadError(f"{proxy} refuses ({why.rpartition(': ')[2]}): {proxy.remedy}")
  return _Cut(f"{proxy} can't be reached ({why}): {proxy.remedy}")


def _unauthorised(proxy: proxies.Proxy) -> str:
  return (
    f"{proxy} needs another user and password (407): set {proxy.variable} to "
    f"http://USER:PASSWORD@HOST:PORT"
  )


def _finish_or_restart(response: requests.Response, part: pathlib.Path, offset: int) -> None:
  """Handles 416: the part is the whole file already, or belongs to another file."""
  total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
  if not total or int(total[1]) != offset:
    discard(part)
    raise _Cut("the server doesn't resume the partial file")


def _start(response: requests.Response, offset: int, through: str) -> int:
  """Returns the byte at which the response, which came `through` a proxy, starts."""
  status = response.status_code
  if status == requests.codes.partial_content:
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) != offset:
      raise DownloadError("the server sends another range than was requested")
    return offset
  if status == requests.codes.ok:  # the server ignores ranges, or the file has changed
    return 0
  kind = _Cut if status >= 500 or status == requests.codes.too_many_requests else DownloadError
  raise kind(f"the server answers {status} {response.reason}{through}")


def _receive(response: requests.Response, part: pathlib.Path, start: int) -> None:
  """Appends the response to the first `start` bytes of `part`."""
  length = response.headers.get("Content-Length")
  total = start + int(length) if length else None
  free = shutil.disk_usage(part.parent).free
  if length and int(length) > free:
    raise DownloadError(
      f"the file needs {int(length) / 1e9:.1f} GB in {part.parent}, and {free / 1e9:.1f} GB are "
      f"free"
    )
  _record_version(response, part)
  # Else urllib3 throws away the bytes before a cut; the length is checked below.
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


def _record_version(response: requests.Response, part: pathlib.Path) -> None:
  etag = response.headers.get("ETag", "")
  strong = "" if etag.startswith("W/") else etag  # If-Range compares strongly
  if version := strong or response.headers.get("Last-Modified", ""):
    _version_file(part).write_text(version, encoding="utf-8")
  else:
    _version_file(part).unlink(missing_ok=True)


def _version_file(part: pathlib.Path) -> pathlib.Path:
  return part.with_name(f"{part.name}.version")


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.exists() else 0
