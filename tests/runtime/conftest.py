import contextlib
import socket

import pytest

from bit_jax.runtime import links


@pytest.fixture
def connection():
  """The two ends of a connection."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    one = links.connect(*server.getsockname(), 5)
    other = links.Link(server.accept()[0])
  with contextlib.closing(one), contextlib.closing(other):
    yield one, other
