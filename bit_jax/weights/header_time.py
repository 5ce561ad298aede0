"""A limit on the time that a server, or a proxy, takes for the headers of a response.

The timeouts of sockets count anew with each packet, so a server that sends a byte at a time, or
`100 Continue` again and again, keeps a client for ever.
"""

import contextlib
import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any

import urllib3
from requests import adapters

if TYPE_CHECKING:
  from _typeshed import WriteableBuffer


class Adapter(adapters.HTTPAdapter):
  """Connections of `requests` whose headers take at most the time of one packet.

  Later ones end like a packet that is late: with a `requests.ReadTimeout`, or a `ProxyError`.
  """

  def get_connection_with_tls_context(
    self, *args: Any, **options: Any
  ) -> urllib3.connectionpool.ConnectionPool:
    """Returns the pool of a request, whose responses are limited."""
    pool: Any = super().get_connection_with_tls_context(*args, **options)
    kind = pool.ConnectionCls
    if not issubclass(getattr(kind, "response_class", object), _Response):
      pool.ConnectionCls = type(kind.__name__, (kind,), {"response_class": _Response})
    found: urllib3.connectionpool.ConnectionPool = pool
    return found


class _Response(http.client.HTTPResponse):
  """A response that reads its headers, with those of all `100 Continue`, until a moment."""

  def __init__(self, sock: socket.socket, *args: Any, **options: Any):
    super().__init__(sock, *args, **options)
    self._limited = _Limited(sock, self.fp.detach())
    self.fp = io.BufferedReader(self._limited)

  def begin(self) -> None:
    super().begin()
    self._limited.lift()


class _Limited(io.RawIOBase):
  """What a socket receives, until its timeout is over, counted from now."""

  def __init__(self, sock: socket.socket, raw: io.RawIOBase):
    self._socket, self._raw, self._seconds = sock, raw, sock.gettimeout()
    self._until = None if self._seconds is None else time.monotonic() + self._seconds

  def lift(self) -> None:
    """Lets the timeout count anew with each packet from now on."""
    if self._until is not None:
      self._until = None
      self._socket.settimeout(self._seconds)

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: "WriteableBuffer") -> int | None:
    if self._until is None:
      return self._raw.readinto(buffer)
    # Raised outside of the suppression, the error has no other one as its context.
    if (left := self._until - time.monotonic()) > 0:
      self._socket.settimeout(left)
      with contextlib.suppress(TimeoutError):
        return self._raw.readinto(buffer)
    raise TimeoutError(f"no complete headers within {self._seconds:g} s")

  def fileno(self) -> int:
    return self._raw.fileno()

  def close(self) -> None:
    self._raw.close()
    super().close()
