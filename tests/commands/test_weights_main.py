"""The command line: what it prints, its exit status, and no traceback for a mistake."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bit_jax.models import architectures
from bit_jax.runtime import cache
from bit_jax.weights import __main__ as cli
from bit_jax.weights import fetch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))


def write(path, num_classes=10, fill=0.5, **others):
  shapes = architectures.parameter_shapes(architectures.find("R14x0.5"), num_classes)
  np.savez(
    path, **{f"resnet/{k}": np.full(s, fill, np.float32) for k, s in shapes.items()}, **others
  )
  return str(path)


def run(capsys, *argv):
  status = cli.main(argv)
  out, err = capsys.readouterr()
  return status, out, err


def test_list(capsys):
  status, out, _ = run(capsys, "list")
  assert status == 0
  assert out.splitlines()[-1] == "328 of 328 checkpoints"
  status, out, _ = run(capsys, "list", "BiT-M-R50x1-[IC]*")
  name, network, classes, parameters, size, *_ = out.splitlines()[1].split()
  assert (name, network, classes) == ("BiT-M-R50x1-ILSVRC2012", "R50x1", "1000")
  assert (parameters, size) == ("25,549,352", "102.2")
  assert out.splitlines()[-1] == "2 of 328 checkpoints"


def test_list_says_what_is_available(capsys):
  cache.directory().mkdir()
  (cache.directory() / "R50x1_224.npz").touch()
  _, out, _ = run(capsys, "list", "R50x1_*")
  available = {line.split()[0]: line.split()[6] for line in out.splitlines()[1:-1]}
  assert available == {"R50x1_160": "no", "R50x1_224": "yes"}


def test_verify(capsys, tmp_path):
  good = write(tmp_path / "good.npz")
  status, out, err = run(capsys, "verify", good)
  count = architectures.num_parameters(architectures.find("R14x0.5"), 10)
  digest = cache.sha256(tmp_path / "good.npz")
  assert (status, err) == (0, "")
  assert out == f"{good}: ok, R14x0.5, 10 classes, {count:,} parameters, sha256 {digest}\n"


def test_verify_goes_on_after_a_bad_file(capsys, tmp_path):
  bad = write(tmp_path / "bad.npz", fill=np.nan)
  status, out, err = run(capsys, "verify", bad, write(tmp_path / "good.npz"))
  assert status == 2
  assert "good.npz: ok" in out
  assert err.startswith(f"error: {bad}: resnet/")
  assert err.endswith("holds NaN or infinite numbers.\n")


def test_verify_holds_a_file_to_its_name(capsys, tmp_path):
  path = write(tmp_path / "BiT-M-R50x1.npz")
  status, _, err = run(capsys, "verify", path)
  assert (status, "holds R14x0.5, not R50x1" in err) == (2, True)


def test_verify_of_a_foreign_file(capsys, tmp_path):
  status, _, err = run(capsys, "verify", write(tmp_path / "a.npz", extra=np.zeros(3)))
  assert (status, "fits no known architecture" in err) == (2, True)


def test_inspect(capsys, tmp_path):
  extra = np.array([1.0, np.nan, 3.0])
  path = write(tmp_path / "a.npz", fill=0.25, text=np.array("hello"), extra=extra)
  status, out, _ = run(capsys, "inspect", path)
  lines = out.splitlines()
  assert status == 0
  assert lines[0] == f"{path}: no known architecture, head of 10 classes"
  rows = {line.split()[0]: line for line in lines[2:-1]}
  assert rows["resnet/group_norm/beta"].split() == [
    *("resnet/group_norm/beta", "(1024,)", "float32", "0.25", "0")
  ]
  assert rows["extra"].split() == ["extra", "(3,)", "float64", "nan", "nan"]
  assert rows["text"].split() == ["text", "()", "<U5", "-", "-"]
  _, out, _ = run(capsys, "inspect", write(tmp_path / "b.npz"))
  assert out.startswith(f"{tmp_path}/b.npz: R14x0.5, head of 10 classes")


def test_download_prints_the_path(capsys, monkeypatch):
  calls = []
  monkeypatch.setattr(fetch, "resolve", lambda *a, **k: calls.append((a, k)) or "/the/path")
  status, out, _ = run(capsys, "download", "BiT-S-R50x1", "--mirror", "u", "--mirror", "v")
  assert (status, out) == (0, "/the/path\n")
  assert calls == [(("BiT-S-R50x1",), {"mirrors": ["u", "v"]})]


@pytest.mark.parametrize("command", ["verify", "inspect", "download"])
@pytest.mark.parametrize(
  ("name", "sentence"),
  [
    ("nope", "Unknown checkpoint 'nope'"),
    ("BiT-L-R50x1", "never released"),
    ("none.npz", "none.npz doesn't exist"),
  ],
)
def test_mistakes_are_sentences(capsys, command, name, sentence):
  status, out, err = run(capsys, command, name)
  assert (status, out) == (2, "")
  assert err.startswith("error: ")
  assert err.count("\n") == 1
  assert sentence in err


def test_what_is_not_at_hand_is_not_downloaded_by_verify(capsys):
  status, _, err = run(capsys, "verify", "BiT-S-R50x1")
  assert (status, "weights download BiT-S-R50x1" in err) == (2, True)


def test_ctrl_c(tmp_path, monkeypatch, capsys):
  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(fetch, "resolve", interrupt)
  assert run(capsys, "download", "BiT-S-R50x1") == (130, "", "interrupted\n")


def test_interrupt_signal_leaves_no_traceback(tmp_path):
  code = (
    # A process started in the background ignores the signal unless it is told otherwise.
    "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from bit_jax.weights import __main__ as m;"
    "m.fetch.resolve = lambda *a, **k: (print('ready', flush=True), time.sleep(60));"
    "sys.exit(m.main(['download', 'x']))"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=30)
  assert (process.returncode, err) == (130, "interrupted\n")


def test_closed_pipe_leaves_no_traceback():
  command = f"{sys.executable} -m bit_jax.weights list | head -1"
  result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
  assert result.stdout.startswith("name")
  assert result.stderr == ""
