"""matplotlib is imported whatever the environment says; each import needs a process of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest
import running

INLINE = "module://matplotlib_inline.backend_inline"  # Jupyter's, whose package may be missing


def printed(code, folder=running.ROOT, **environment):
  variables = {**os.environ, "PYTHONPATH": str(running.ROOT), **environment}
  command = [sys.executable, "-W", "error", "-c", code]
  done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, "")
  return done.stdout


@pytest.mark.parametrize(
  ("backend", "applied"),
  [
    (INLINE, INLINE if importlib.util.find_spec("matplotlib_inline") else None),
    ("garbage", None),
    ("TkAgg", "TkAgg"),
  ],
)
def test_a_backend_that_is_not_there_does_not_matter(backend, applied):
  code = (
    "import os; from bit_jax.runtime import imports;"
    "found = imports.matplotlib().get_backend(auto_select=False);"
    "print(os.environ['MPLBACKEND'], found)"
  )
  assert printed(code, MPLBACKEND=backend) == f"{backend} {applied}\n"


def test_a_home_that_cannot_be_written_to_is_no_message(tmp_path):
  (tmp_path / "file").touch()
  code = "from bit_jax.runtime import imports; print(imports.matplotlib().__name__)"
  no_folder = str(tmp_path / "file" / "below")
  assert printed(code, HOME=no_folder, MPLCONFIGDIR=no_folder) == "matplotlib\n"


def test_broken_settings_are_an_import_error_here_and_for_other_packages(tmp_path):
  (tmp_path / "matplotlibrc").write_bytes(b"\xff")
  code = """
import logging, sys
from bit_jax.runtime import imports
logging.getLogger().setLevel(logging.ERROR)  # as absl does
for name in ("ours", "others"):
  try:
    if name == "ours":
      imports.matplotlib()
    else:
      with imports.matplotlib_or_import_error():
        import matplotlib
  except ImportError as e:
    print(name, e)
print("matplotlib" in sys.modules)
"""
  ours, others, left = printed(code, tmp_path).splitlines()
  assert ours.startswith("ours matplotlib can't be imported (UnicodeDecodeError: ")
  assert others == "others import of matplotlib halted; None in sys.modules"
  assert left == "False"


def test_commands_start_without_it():
  """They need it only to draw: a broken one must not end them."""
  code = (
    "import sys, bit_jax.train, bit_jax.data.__main__, experiments.report, experiments.sweep;"
    "print('matplotlib' in sys.modules)"
  )
  assert printed(code) == "False\n"
