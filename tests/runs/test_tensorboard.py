"""Whatever TensorBoard's side raises costs the events, in one line, and never the run."""

import errno
import sys
import tempfile
import types

import pytest

from bit_jax.data import __main__ as data_main
from bit_jax.data import datasets, opening
from bit_jax.runs import tensorboard
from bit_jax.runtime import errors, imports

RAISED = [
  TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file,"),
  AttributeError("module 'ml_dtypes' has no attribute 'float8_e3m4'"),
  RuntimeError("module compiled against ABI version 0x1000009"),
  OSError("libcudart.so.12: cannot open shared object file"),
  ImportError("DLL load failed"),
  SystemError("initialization failed"),
  SystemExit(1),
  AssertionError(),
]


class Broken(types.ModuleType):
  """A module whose attributes raise, as one that fails while it is imported."""

  def __init__(self, error):
    super().__init__("tensorflow")
    self.__dict__.update(error=error, __path__=[])

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    raise self.error


@pytest.fixture(params=RAISED, ids=lambda e: type(e).__name__)
def broken(request, monkeypatch):
  """TensorFlow that raises something; returns what."""
  monkeypatch.setitem(sys.modules, "tensorflow", Broken(request.param))
  modules = ("sources.tfds_builders", "sources.tfds_reader", "doctor.preparing", "doctor.readiness")
  for name in modules:
    monkeypatch.delitem(sys.modules, f"bit_jax.data.{name}", raising=False)  # to import them again
    monkeypatch.delattr(f"bit_jax.data.{name}", raising=False)
  return request.param


class Writer:
  """Stands for `clu.metric_writers.SummaryWriter`; one of its methods fails."""

  failing = ""

  def __init__(self, folder):
    self.fail("open")

  def fail(self, what):
    if self.failing == what:
      raise PermissionError(28, "No space left on device")

  def write_scalars(self, step, scalars):
    self.fail("write")

  def close(self):
    self.fail("close")


def open_events(folder, say, profiled=None):
  return tensorboard.Events(folder, profiled=profiled, say=say)


def go_through(folder, profiled=None):
  """Returns what is said in a run's course."""
  said: list[str] = []
  opened = open_events(folder, said.append, profiled)
  for step in range(1, 4):
    opened.step(step)
    opened.write(step, {"train/loss": 0.5})
  opened.close()
  return [line for line in said if not line.startswith("Importing")]


def test_a_broken_tensorflow_costs_the_events(tmp_path, broken):
  (line,) = go_through(tmp_path)
  assert line.startswith("TensorBoard logging is disabled: ")
  assert "\n" not in line
  assert type(broken).__name__ in line
  assert str(broken).partition("\n")[0] in line


def test_a_set_that_needs_a_broken_tensorflow_says_so(broken, capsys):
  with pytest.raises(errors.UserError, match="can't be imported") as e:
    opening.open_set(datasets.Request("cifar10")).sources()
  assert type(broken).__name__ in str(e.value)
  assert data_main.main(["doctor", "cifar10"]) == 2
  assert type(broken).__name__ in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("failing", ["open", "write", "close"])
def test_a_writer_that_fails_costs_the_events(tmp_path, monkeypatch, capfd, failing):
  pytest.importorskip("tensorflow")
  from clu import metric_writers

  monkeypatch.setattr(Writer, "failing", failing)
  monkeypatch.setattr(metric_writers, "SummaryWriter", Writer)
  (line,) = go_through(tmp_path)
  assert "TensorBoard events" in line
  assert "(PermissionError: No space left on device)" in line
  assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_noticed_before_tensorflow_prints_of_it(tmp_path, monkeypatch, capfd):
  pytest.importorskip("tensorflow")
  from clu import metric_writers

  def full(**_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(tempfile, "TemporaryFile", full)
  monkeypatch.setattr(metric_writers, "SummaryWriter", lambda *_: pytest.fail("it was opened"))
  (line,) = go_through(tmp_path)
  assert "TensorBoard events end here (OSError: No space left on device); the run continues" in line
  assert capfd.readouterr() == ("", "")


def test_a_profile_that_fails_costs_the_events(tmp_path, monkeypatch):
  pytest.importorskip("tensorflow")
  from clu import metric_writers, periodic_actions

  def fail(self, step):
    raise RuntimeError("Cannot start a profile twice")

  monkeypatch.setattr(metric_writers, "SummaryWriter", Writer)
  monkeypatch.setattr(periodic_actions.Profile, "__call__", fail)
  (line,) = go_through(tmp_path, profiled=1)
  assert "RuntimeError: Cannot start a profile twice" in line


def test_explained_names_what_is_missing():
  with (
    pytest.raises(ImportError, match="No module named 'nowhere'"),
    imports.explained(),
  ):
    import nowhere  # noqa: F401


def test_tensorflow_keeps_no_number_that_was_written(tmp_path):
  """It keeps Python's, each in a cache without a bound."""
  pytest.importorskip("tensorflow")
  opened, value, step = open_events(tmp_path, lambda _: None), float("0.123456"), int("123456")
  before = sys.getrefcount(value), sys.getrefcount(step)
  opened.write(step, {"train/loss": value})
  opened.close()
  assert (sys.getrefcount(value), sys.getrefcount(step)) == before
  (events,) = tmp_path.glob("events.out.tfevents.*")
  assert b"train/loss" in events.read_bytes()
