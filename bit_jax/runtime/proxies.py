"""The HTTP proxy between this machine and a server."""

import contextlib
import importlib.util
import os
import re
import urllib.parse
from typing import NamedTuple

import requests
import urllib3

_PORTS = {
  "http": 80,
  "https": 443,
  **dict.fromkeys(("socks4", "socks4a", "socks5", "socks5h"), 1080),
}


class Proxy(NamedTuple):
  """A proxy in use.

  Attributes:
    url: The configured URL, with its password.
    variable: The environment variable that sets it.
    host: The server that it is used for.
  """

  url: str
  variable: str
  host: str

  def __str__(self) -> str:
    """Returns its name in messages."""
    shown = re.sub(r"^([^/]*//)?.*@", r"\1", self.url)  # a password may hold any character
    return f"the proxy {shown} (from {self.variable})"

  @property
  def remedy(self) -> str:
    """What the user can do if it doesn't work."""
    return (
      f"correct {self.variable} (http://USER:PASSWORD@HOST:PORT), unset it, or add {self.host} to "
      f"NO_PROXY"
    )

  @property
  def fault(self) -> str | None:
    """A clause on why its setting can't be used; None if only a connection can show that."""
    with contextlib.suppress(ValueError):
      parts = self._parts()
      if parts.scheme in _PORTS and parts.host and not re.search(r"\s", parts.host):
        if not parts.scheme.startswith("socks") or importlib.util.find_spec("socks"):
          return None
        return f"{self} needs a package: pip install 'requests[socks]', or unset {self.variable}"
    return f"{self} is not a valid URL: {self.remedy}"

  @property
  def address(self) -> tuple[str, int]:
    """Host and port of a proxy without `fault`."""
    parts = self._parts()
    return parts.host or "", parts.port or _PORTS[parts.scheme or ""]

  def _parts(self) -> urllib3.util.Url:
    return urllib3.util.parse_url(self.url if ":/" in self.url else f"http://{self.url}")


def find(url: str) -> Proxy | None:
  """Returns the proxy that `requests` uses for a URL, by the environment; None without one.

  Raises:
    ValueError: The URL is invalid.
  """
  parts = urllib.parse.urlsplit(url)
  used = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
  if not used:
    return None
  names = (f"{parts.scheme}_proxy", "all_proxy")
  variables = (v for v in os.environ if v.lower() in names and os.environ[v] == used)
  return Proxy(used, next(variables, "the system's settings"), parts.hostname or "")


def without_password(url: str) -> str:
  """Returns a URL without the user and password in it.

  Args:
    url: A valid one: in a password, `/` is written as `%2F`.
  """
  return re.sub(r"^([^/]*//)?[^/]*@", r"\1", url)
