"""The command line `python -m bit_jax.data`: what it prints, its exit status, no traceback."""

import os
import signal
import subprocess
import sys
import types

import pytest

from bit_jax.data import __main__ as cli
from bit_jax.data import datasets, vtab
from bit_jax.runtime import errors


def run(capsys, *argv):
  status = cli.main(argv)
  out, err = capsys.readouterr()
  return status, out, err


def test_names_are_resolved():
  tasks = tuple(f"vtab/{task}" for task in vtab.TASKS)
  assert len(tasks) == 19
  assert cli.select(["vtab"]) == tasks
  assert cli.select(["svhn", "vtab/dtd", "cifar100", "svhn"]) == (
    "vtab/svhn",
    "vtab/dtd",
    "cifar100",
  )
  assert cli.select([]) == tuple(n for n in datasets.NAMES if n not in ("digits", "npz", "folder"))
  assert cli.select(["cifar10", "vtab"]) == ("cifar10", *tasks)


@pytest.mark.parametrize(
  ("name", "sentence"),
  [
    ("svnh", "data set 'svnh' (did you mean svhn?)"),
    ("vtab/clevr-cuont", "did you mean vtab/clevr-count?"),
    ("vtba", "did you mean vtab?"),
    ("qqqq", "data set 'qqqq'. Choose vtab (all 19 tasks), cifar10, "),
    ("digits", "nothing to prepare"),
    ("npz", "your own files"),
    ("folder", "bit_jax.data check PATH"),
  ],
)
def test_mistaken_names_are_sentences(capsys, name, sentence):
  status, out, err = run(capsys, "doctor", "cifar10", name)
  assert (status, out) == (2, "")
  assert err.startswith("error: ")
  assert err.count("\n") == 1
  assert sentence in err


def test_mistakes_do_not_wait_for_tensorflow(printed_by):
  code = (
    "import sys; from bit_jax.data import __main__ as m; status = m.main(['doctor', 'svnh']);"
    "print(status, {'jax', 'tensorflow'} & set(sys.modules))"
  )
  assert printed_by(code) == "2 set()\n"


@pytest.mark.parametrize("command", [[], ["doctor"], ["check"]])
def test_help(capsys, command):
  with pytest.raises(SystemExit) as caught:
    cli.main([*command, "--help"])
  assert caught.value.code == 0
  assert "usage: python -m bit_jax.data" in capsys.readouterr().out


def stand_in(monkeypatch, failed):
  """Puts a module with recorded calls in the place of the real one, which imports TensorFlow."""
  calls = []
  module = types.ModuleType("bit_jax.data.doctor.readiness")
  module.report = lambda *a: calls.append(("report", *a))
  module.download = lambda *a: calls.append(("download", *a)) or failed
  monkeypatch.setitem(sys.modules, "bit_jax.data.doctor.readiness", module)
  monkeypatch.setattr("bit_jax.data.doctor.readiness", module, raising=False)
  return calls


def test_doctor_lists_and_downloads_nothing_unasked(capsys, monkeypatch):
  calls = stand_in(monkeypatch, {})
  status, _, err = run(capsys, "doctor", "svhn", "--data_dir=d", "--protocol=select")
  assert (status, calls) == (0, [("report", ("vtab/svhn",), "select", "d")])
  assert "TensorFlow" in err


def test_doctor_download_says_what_failed(capsys, monkeypatch):
  calls = stand_in(monkeypatch, {"vtab/dtd": "no network."})
  status, out, _ = run(capsys, "doctor", "svhn", "dtd", "--download")
  names = ("vtab/svhn", "vtab/dtd")
  assert calls == [("download", names, "final", None), ("report", names, "final", None)]
  assert status == 2
  assert out.endswith("1 of 2 sets are prepared.\nfailed: vtab/dtd: no network.\n")
  stand_in(monkeypatch, {})
  assert run(capsys, "doctor", "svhn", "--download")[0] == 0


@pytest.mark.parametrize(
  ("error", "status", "printed"),
  [
    (errors.UserError("A sentence."), 2, "error: A sentence.\n"),
    (
      PermissionError(13, "Permission denied", "d"),
      2,
      "error: d: Permission denied. Fix this, then run the same command again.\n",
    ),
    (KeyboardInterrupt(), 130, "interrupted\n"),
  ],
)
def test_what_goes_wrong_is_a_sentence(capsys, monkeypatch, error, status, printed):
  def fail(*_):
    raise error

  stand_in(monkeypatch, {})
  monkeypatch.setattr(sys.modules["bit_jax.data.doctor.readiness"], "report", fail)
  found, _, err = run(capsys, "doctor", "svhn")
  assert found == status
  assert err.splitlines(keepends=True)[1:] == [printed]


def test_check_hands_on_path_and_folder(capsys, monkeypatch):
  calls = []
  module = types.ModuleType("bit_jax.data.check.report")
  module.main = lambda path, out: calls.append((path, out)) or 1
  monkeypatch.setitem(sys.modules, "bit_jax.data.check.report", module)
  monkeypatch.setattr("bit_jax.data.check.report", module, raising=False)
  assert run(capsys, "check", "images", "--out=o")[0] == 1
  run(capsys, "check", "images")
  assert calls == [("images", "o"), ("images", None)]


@pytest.mark.slow
def test_the_whole_command(tmp_path):
  line = [sys.executable, "-m", "bit_jax.data", "doctor", "eurosat", f"--data_dir={tmp_path}"]
  done = subprocess.run(line, capture_output=True, text=True, check=True)
  assert done.stderr == "Importing TensorFlow (about 8 s) ...\n"
  assert f"not prepared, {tmp_path}/eurosat/rgb/2.0.0 doesn't exist" in done.stdout


@pytest.mark.slow
def test_an_interrupted_download_ends_at_once(tmp_path):
  code = (
    # A process started in the background ignores the signal unless it is told otherwise.
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from bit_jax.data.doctor import readiness;"
    "import concurrent.futures, time;"
    "pool = concurrent.futures.ThreadPoolExecutor();"
    "readiness.download = lambda *_: pool.submit("
    "  lambda: (print('ready', flush=True), time.sleep(600))).result();"
    "sys.argv = ['data', 'doctor', 'svhn', '--download'];"
    "runpy.run_module('bit_jax.data', run_name='__main__')"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONUNBUFFERED": "1"},
  )
  try:
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == 130
  assert err.endswith("interrupted\n")
  assert "Traceback" not in err
