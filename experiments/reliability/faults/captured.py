"""What is printed while something is done, also by libraries and threads."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
  """Yields a list that holds, after this context, what was printed to both streams.

  Also what libraries and threads print. By pipes: a file has a size, which may be limited.
  """
  texts: list[str] = []
  with contextlib.ExitStack() as stack:
    for descriptor in (1, 2):
      stack.enter_context(_piped(descriptor, texts))
    yield texts
  texts.sort(key=lambda text: text[0])
  texts[:] = [text[1:] for text in texts]


@contextlib.contextmanager
def _piped(descriptor: int, texts: list[str]) -> Iterator[None]:
  """Sends a descriptor's output to a list, with the descriptor as the first letter."""
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  reading, writing = os.pipe()
  kept = os.dup(descriptor)
  os.dup2(writing, descriptor)
  os.close(writing)
  found: list[bytes] = []

  def read() -> None:
    while part := os.read(reading, 1 << 16):
      found.append(part)

  reader = threading.Thread(target=read)
  reader.start()
  try:
    yield
  finally:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    os.dup2(kept, descriptor)
    os.close(kept)
    reader.join()
    os.close(reading)
    texts.append(f"{descriptor}{b''.join(found).decode(errors='replace')}")
