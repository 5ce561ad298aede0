"""Headless Chromium, driven over a pipe by the DevTools protocol."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
  *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
  *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
  *("--remote-debugging-pipe", "--hide-scrollbars"),
)
PHONE, DESKTOP = 390, 1280  # pixels


def find():
  """Returns the browser's path, None where there is none."""
  return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browser(seconds=120):
  """Yields a `Page` of a browser of its own."""
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
    commands, to_us = os.pipe(), os.pipe()
    # Chromium reads commands from descriptor 3 and writes to 4.
    line = f'exec "$@" 3<&{commands[0]} 4>&{to_us[1]}'
    process = subprocess.Popen(
      ["bash", "-c", line, "bash", find(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
      pass_fds=(commands[0], to_us[1]),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(commands[0])
    os.close(to_us[1])
    try:
      yield Page(commands[1], to_us[0], seconds)
    finally:
      process.kill()
      process.wait()
      os.close(commands[1])
      os.close(to_us[0])


class Page:
  """One page, with what happens on it.

  Attributes:
    events: (method, parameters) of everything that was reported since the page was opened.
  """

  def __init__(self, to_browser, from_browser, seconds):
    self._out, self._in, self._seconds = to_browser, from_browser, seconds
    self._buffer, self._number, self._session = b"", 0, None
    self.events = []
    target = self.call("Target.createTarget", url="about:blank")["targetId"]
    attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
    self._session = attached["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
      self.call(f"{domain}.enable")

  def call(self, method, **parameters):
    """Calls a method of the protocol and returns its result."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": parameters}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._out, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._read()
      if answer.get("id") == self._number:
        assert "error" not in answer, answer
        return answer["result"]
      self.events.append((answer.get("method"), answer.get("params", {})))

  def _read(self):
    end = time.monotonic() + self._seconds
    while b"\0" not in self._buffer:
      assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "no answer"
      got = os.read(self._in, 1 << 20)
      assert got, "the browser ended"
      self._buffer += got
    message, _, self._buffer = self._buffer.partition(b"\0")
    return json.loads(message)

  def open(self, path, width=DESKTOP, *, dark=False, script=True):
    """Opens a file at a width, and waits until it is loaded."""
    self.events.clear()
    self.call("Emulation.setScriptExecutionDisabled", value=not script)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    self.call("Emulation.setEmulatedMedia", features=[scheme])
    self.call(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=844,
      deviceScaleFactor=1,
      mobile=width == PHONE,
    )
    self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
    while not any(method == "Page.loadEventFired" for method, _ in self.events):
      answer = self._read()
      self.events.append((answer.get("method"), answer.get("params", {})))

  def run(self, expression):
    """Returns the value of an expression of JavaScript."""
    result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in result, result
    return result["result"].get("value")

  def addresses(self):
    """Returns what the page has requested, without what it contains itself."""
    sent = [p["request"]["url"] for m, p in self.events if m == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]

  def complaints(self):
    """Returns errors and warnings of the console."""
    found = [p for m, p in self.events if m in ("Log.entryAdded", "Runtime.exceptionThrown")]
    return found + [p for m, p in self.events if m == "Runtime.consoleAPICalled"]

  def overflow(self):
    """Returns by how many pixels the page is wider than the window."""
    page = "document.documentElement"
    return self.run(f"{page}.scrollWidth - {page}.clientWidth")

  def pdf(self):
    """Returns the page as printed on A4."""
    size = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
    return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=False, **size)["data"])

  def screenshot(self, path):
    """Writes a PNG file of the whole page."""
    metrics = self.call("Page.getLayoutMetrics")["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": metrics["width"], "height": min(metrics["height"], 16000)}
    data = self.call(
      "Page.captureScreenshot", captureBeyondViewport=True, clip={**clip, "scale": 1}
    )
    pathlib.Path(path).write_bytes(base64.b64decode(data["data"]))
