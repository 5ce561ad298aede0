"""Four CPU devices for every test, and the data that lies outside the project."""

import fcntl
import gc
import importlib.util
import os
import pathlib
import pwd
import subprocess
import sys

# Both are read when jax's first device is asked for, so they are set before any test module loads.
# On a busy machine a device may wait longer for the others than the 40 s after which XLA aborts.
os.environ["XLA_FLAGS"] = (
  f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4 "
  "--xla_cpu_collective_call_terminate_timeout_seconds=600"
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.pop("MPLBACKEND", None)  # a notebook's, whose package need not be installed

import hypothesis
import jax
import numpy as np
import pytest

# Python's default, 700, searches the many objects of JAX and TensorFlow for cycles all the time.
gc.set_threshold(50_000)

# No test asserts a time: how long an example takes is up to the machine, and its disk.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SHARED = "BIT_JAX_TEST_DATA"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
  """Tests write nothing below the user's home."""
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _earlier_compilation_cache():
  """A command that runs in this process sets up JAX's cache for itself, not for later tests."""
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
  )
  earlier = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in earlier.items():
    jax.config.update(name, value)


@pytest.fixture
def no_home(monkeypatch):
  """A user without a home folder, as in a container that is run as any user."""

  def unknown(_):
    raise KeyError

  monkeypatch.delenv("HOME", raising=False)
  monkeypatch.delenv("BIT_JAX_CACHE", raising=False)
  monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture(scope="session")
def printed_by():
  """A function that runs Python code in a process of its own and returns what it prints."""

  def run(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

  return run


@pytest.fixture(scope="session")
def shared():
  """The folder with the official code's outputs and real data; tests that need it skip without."""
  path = os.environ.get(SHARED)
  if not path or not pathlib.Path(path).is_dir():
    pytest.skip(f"{SHARED} does not name the folder with reference outputs and data sets")
  return pathlib.Path(path)


@pytest.fixture(scope="session")
def synth_npz(shared):
  """The module that makes checkpoints and images from seeds."""
  spec = importlib.util.spec_from_file_location("synth_npz", shared / "golden" / "synth_npz.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="session")
def tfds_dir(shared, tmp_path_factory):
  """CIFAR-10 and CIFAR-100, prepared for tensorflow-datasets, once for all workers of pytest."""
  base = tmp_path_factory.getbasetemp()
  folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tfds"
  with folder.with_suffix(".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [sys.executable, shared / "data" / "prepare.py", folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, name], **pipes) for name in ("cifar10", "cifar100")]
    for process in processes:
      out, err = process.communicate()
      assert process.returncode == 0, out + err
  return folder


@pytest.fixture
def npz_path(tmp_path):
  """An npz file of 20 images to train on and 6 to score, of two classes."""
  random = np.random.default_rng(0)
  path = tmp_path / "set.npz"
  np.savez(
    path,
    train_images=random.integers(0, 256, (20, 4, 5, 3), dtype=np.uint8),
    train_labels=np.arange(20) % 2,
    test_images=random.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    test_labels=np.arange(6) % 2,
  )
  return str(path)


@pytest.fixture
def saved_figures(monkeypatch):
  """Every figure of matplotlib that is saved."""
  from matplotlib.figure import Figure  # few tests draw, and it takes long to load

  saved = []
  save = Figure.savefig

  def note(figure, *arguments, **more):
    saved.append(figure)
    return save(figure, *arguments, **more)

  monkeypatch.setattr(Figure, "savefig", note)
  return saved
