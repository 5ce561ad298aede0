"""Messages between the processes of a run: lines of JSON over TCP.

The kernel notices within half a minute that another machine is gone, and at once that a process is.
"""

import contextlib
import json
import socket
import threading
from typing import Any

_LONGEST = 2**24  # bytes of a message
# Of a connection without messages: seconds until the first probe, between probes, and their number.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_UNANSWERED = 25_000  # milliseconds

Message = dict[str, Any]


class Gone(Exception):  # noqa: N818 - not every end is an error
  """The other process has ended, or its machine is gone."""


class Strange(Gone):
  """The other end is not a process of bit_jax."""


class Link:
  """A connection to another process."""

  def __init__(self, connection: socket.socket):
    """Takes a connected socket."""
    self._socket, self._rest, self._sending = connection, b"", threading.Lock()
    connection.setblocking(True)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
      if option := getattr(socket, name, None):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    if option := getattr(socket, "TCP_USER_TIMEOUT", None):
      connection.setsockopt(socket.IPPROTO_TCP, option, _UNANSWERED)

  def __del__(self) -> None:
    """Ends a connection that nobody uses any more."""
    self.close()

  def fileno(self) -> int:
    """Returns the descriptor, for `select`."""
    return self._socket.fileno()

  def send(self, message: Message) -> None:
    """Sends a message; whoever reads next finds out if the other end is gone."""
    with self._sending, contextlib.suppress(OSError):
      self._socket.sendall(json.dumps(message).encode() + b"\n")

  def receive(self, longest: int = _LONGEST) -> list[Message]:
    """Returns the messages that have arrived since the last call; waits until something arrives.

    Args:
      longest: Bytes of a message at most.

    Raises:
      Gone: The connection ended.
      Strange: What arrived is not a message.
    """
    try:
      data = self._socket.recv(2**16)
    except OSError as e:
      raise Gone from e
    if not data:
      raise Gone
    *lines, self._rest = (self._rest + data).split(b"\n")
    if self._rest[:1] not in (b"", b"{") or max(map(len, [*lines, self._rest])) > longest:
      raise Strange
    try:
      found = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as e:
      raise Strange from e
    if not all(isinstance(message, dict) for message in found):
      raise Strange
    return found

  def close(self) -> None:
    """Ends the connection."""
    self._socket.close()


def listen(port: int) -> socket.socket:
  """Returns a socket that takes connections to a port of this machine.

  Raises:
    OSError: The port is taken, or reserved.
  """
  both = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both else socket.AF_INET
  return socket.create_server(("", port), family=family, backlog=128, dualstack_ipv6=both)


def connect(host: str, port: int, seconds: float) -> Link:
  """Connects to a process.

  Raises:
    OSError: It doesn't listen yet, or the host is unknown.
  """
  return Link(socket.create_connection((host.strip("[]"), port), timeout=seconds))
