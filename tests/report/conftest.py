"""What all tests of reports share: one run folder, and one browser."""

import chromium
import pytest
import report_runs


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  """A finished run, and what it was made of."""
  return report_runs.make(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="session")
def browser():
  """A page of headless Chromium; tests of it are skipped where there is no browser."""
  if chromium.find() is None:
    pytest.skip(f"No browser is installed (none of {', '.join(chromium.NAMES)})")
  with chromium.browser() as page:
    yield page
