"""Reports in headless Chromium: no error, no request, no overflow; tables sort; pages print."""

import chromium
import pytest
import report_runs
import run_folders

from bit_jax.report import run_page, values
from experiments import report as sweep_report

WIDTHS = (chromium.PHONE, chromium.DESKTOP)
TABLE = "document.querySelector('[aria-label=\"Accuracy of each class\"] table')"


@pytest.fixture(scope="module")
def pages(made, tmp_path_factory):
  """The reports of a run and of a sweep."""
  folder = tmp_path_factory.mktemp("pages")
  root = folder / "runs"
  for shots, top1 in ((1, 0.3), (5, 0.5)):
    config = run_folders.reduced(f"model=R14x0.5,shots={shots}")
    run_folders.write(root / f"{shots}-{'x' * 90}", config, top1)
  run_folders.dump(root / "failed" / "error.json", {"kind": "UserError", "message": "y" * 200})
  sweep_report.write(root, folder / "sweep", "runs")
  return {
    "run": run_page.write(made.folder, folder / "run.html"),
    "sweep": folder / "sweep" / "report.html",
  }


@pytest.mark.parametrize("kind", ["run", "sweep"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_fits_and_asks_for_nothing(browser, pages, kind, width, dark):
  browser.open(pages[kind], width, dark=dark)
  assert browser.complaints() == []
  assert browser.addresses() == [pages[kind].as_uri()]
  assert browser.run("document.documentElement.clientWidth") == width
  assert browser.overflow() <= 0
  assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
  ground = browser.run("getComputedStyle(document.body).backgroundColor")
  assert (ground == "rgb(255, 255, 255)") is not dark


def column(browser, number):
  return browser.run(f"[...{TABLE}.tBodies[0].rows].map(r => r.cells[{number}].textContent.trim())")


def click(browser, number):
  browser.run(f"{TABLE}.tHead.rows[0].cells[{number}].querySelector('button').click()")
  return browser.run(f"{TABLE}.tHead.rows[0].cells[{number}].getAttribute('aria-sort')")


def test_tables_sort(browser, pages):
  browser.open(pages["run"])
  names = [values.plain(name, 60) for name in report_runs.NAMES]
  shown = [name.replace("\udcff", "\\udcff") for name in names]
  assert column(browser, 0) == shown
  before = column(browser, 3)
  assert click(browser, 3) == "ascending"
  numbers = sorted((v for v in before if v), key=float)
  assert column(browser, 3) == [*numbers, ""]  # the class without test images comes last
  assert click(browser, 3) == "descending"
  assert column(browser, 3) == [*numbers[::-1], ""]
  assert click(browser, 0) == "ascending"
  assert sorted(column(browser, 0)) == sorted(shown)
  assert column(browser, 0)[-3:-2] == ["cat"]  # letters as in a dictionary, after signs
  assert browser.run(f"{TABLE}.querySelectorAll('[aria-sort]').length") == 1
  assert browser.complaints() == []


def test_a_page_without_scripts_is_complete(browser, pages):
  browser.open(pages["run"], script=False)
  shown = browser.call("DOMSnapshot.captureSnapshot", computedStyles=[])["strings"]
  assert "Accuracy of each class" in shown
  assert not any(text == "BUTTON" for text in shown)


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_page_prints(browser, pages, kind):
  browser.open(pages[kind], dark=True)
  printed = browser.pdf()
  assert printed.startswith(b"%PDF-")
  assert printed.count(b"/Type /Page\n") >= 2
