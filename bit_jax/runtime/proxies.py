"""The HTTP proxy between this machine and a server, and the reasons of failed connections."""

import importlib.util
import os
import re
import urllib.parse
from typing import NamedTuple

import requests
import urllib3

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
  """A proxy in use.

  Attributes:
    url: As it is set, with its password.
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
    return f"correct or unset {self.variable}, or add {self.host} to NO_PROXY"

  @property
  def fault(self) -> str | None:
    """A clause on why its setting can't be used; None if only a connection can show that."""
    try:
      scheme, host, _ = self._parts()
    except ValueError:
      scheme, host = "", ""
    if scheme in _SOCKS:
      if importlib.util.find_spec("socks") is None:
        return (
          f"{self} needs a package that isn't installed: pip install 'requests[socks]', or unset "
          f"{self.variable}"
        )
    elif scheme not in ("http", "https") or not host:
      return f"{self} is not a valid proxy URL, such as http://host:port: {self.remedy}"
    return None

  @property
  def address(self) -> tuple[str, int]:
    """Host and port of a proxy without `fault`."""
    scheme, host, port = self._parts()
    return host, port or _PORTS.get(scheme, 1080)

  def _parts(self) -> tuple[str, str, int | None]:
    parts = urllib3.util.parse_url(self.url if ":/" in self.url else f"http://{self.url}")
    return parts.scheme or "", parts.host or "", parts.port


def find(url: str) -> Proxy | None:
  """Returns the proxy that `requests` uses for a URL, by the environment; None without one."""
  parts = urllib.parse.urlsplit(url)
  used = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
  if not used:
    return None
  names = (f"{parts.scheme}_proxy", "all_proxy")
  variables = [v for v in os.environ if v.lower() in names and os.environ[v] == used]
  return Proxy(used, variables[0] if variables else "the system's settings", parts.hostname or "")


def without_password(url: str) -> str:
  """Returns a URL without the user and password in it.

  Args:
    url: A valid one: in a password, `/` is written as `%2F`.
  """
  return re.sub(r"^([^/]*//)?[^/]*@", r"\1", url)


def reason(error: BaseException) -> str:
  """Returns the message of the system or the proxy that caused a failed connection."""
  seen = [error]
  while deeper := _causes(seen[-1], seen):
    seen.append(deeper[0])
  root = seen[-1]
  text = (root.strerror if isinstance(root, OSError) else None) or str(root)
  return text.splitlines()[0].rstrip(".") if text else type(root).__name__


def _causes(error: BaseException, seen: list[BaseException]) -> list[BaseException]:
  """Returns the causes of an error; urllib3 keeps them in one of several places."""
  places = (getattr(error, "reason", None), getattr(error, "original_error", None))
  found = (*places, *reversed(error.args), error.__cause__, error.__context__)
  return [e for e in found if isinstance(e, BaseException) and e not in seen]
