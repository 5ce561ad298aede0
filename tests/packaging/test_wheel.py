"""The wheel, installed beside nothing of the checkout: the configs travel in it, and it trains."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import running
from PIL import Image

pytestmark = pytest.mark.slow

# Hides the checkout, which is installed in the tests' environment, and what the extras install: the
# base dependencies remain.
START = """
import runpy, sys
from importlib.machinery import PathFinder

HIDDEN = (
  "tensorflow", "tensorflow_datasets", "tensorboard", "h5py", "importlib_resources", "pandas",
  "submitit",
)

class Others(PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in HIDDEN else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", str(f))]
sys.meta_path[sys.meta_path.index(PathFinder)] = Others
sys.path = [p for p in sys.path if p.rstrip("/") != sys.argv[1]]
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel, built from a copy of the checkout's tracked and new files."""
  source = tmp_path_factory.mktemp("source")
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(running.ROOT / name, source)
  for name in ("bit_jax", "configs"):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(running.ROOT / name, source / name, symlinks=True, ignore=ignored)
  target = tmp_path_factory.mktemp("wheel")
  pip(["wheel", "--no-build-isolation", "--wheel-dir", str(target), str(source)])
  return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
  folder = tmp_path_factory.mktemp("site")
  pip(["install", "--target", str(folder), str(wheel)])
  return folder


@pytest.fixture
def launch(site, tmp_path, tmp_path_factory):
  """A function that runs a module of the wheel in an empty folder; (status, stdout, stderr)."""

  def run(module, *arguments):
    line = [sys.executable, "-c", START, str(running.ROOT), module, *arguments]
    environment = {
      **os.environ,
      "JAX_COMPILATION_CACHE_DIR": str(running.cache_folder(tmp_path_factory)),
      "PYTHONPATH": str(site),
    }
    done = subprocess.run(
      line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr

  return run


def pip(arguments):
  line = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--no-index"]
  subprocess.run(line, check=True, capture_output=True, text=True)


def test_the_wheel_holds_the_configs_once(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  packaged = {name.removeprefix("bit_jax/configs/") for name in names if "configs/" in name}
  assert packaged == {path.name for path in (running.ROOT / "configs").glob("*.py")}
  tops = {name.partition("/")[0] for name in names}
  assert {top for top in tops if not top.endswith(".dist-info")} == {"bit_jax"}
  assert "bit_jax/weights/assets/R14x0.5-CIFAR100.npz" in names
  templates = {name.rpartition("/")[2] for name in names if "report/templates/" in name}
  assert templates == {p.name for p in (running.ROOT / "bit_jax/report/templates").iterdir()}


def test_the_quickstart_from_an_empty_folder(launch, tmp_path, site):
  line = running.command(total_steps=2, eval_every=2)
  status, out, err = launch(*line[line.index("-m") + 1 :])
  assert (status, "Traceback" in err) == (0, False), err
  (folder,) = (tmp_path / "runs").iterdir()
  assert json.loads((folder / "result.json").read_text())["steps"] == 2
  assert "pip install 'bit_jax[tensorboard]'" in out


def test_a_folder_of_images(launch, tmp_path):
  random = np.random.default_rng(0)
  for name in ("one", "two"):
    (tmp_path / "photos" / name).mkdir(parents=True)
    for i in range(10):
      picture = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
      picture.save(tmp_path / "photos" / name / f"{i}.png")
  status, out, err = launch("bit_jax.data", "check", "photos")
  assert (status, "20 " in out) == (0, True), err
  config = "--config=configs/folder.py:model=R14x0.5,path=photos"
  status, out, err = launch("bit_jax.train", config, "--dry_run")
  assert (status, "16" in out) == (0, True), err


def test_what_needs_an_extra_names_it(launch):
  config = "--config=configs/cifar10.py:model=R14x0.5"
  status, out, err = launch("bit_jax.train", config, "--dry_run")
  assert (status, "50,000" in out) == (0, True), err
  for line in (("bit_jax.train", config), ("bit_jax.data", "doctor", "cifar10")):
    status, _, err = launch(*line)
    assert status == 2
    assert "Traceback" not in err
    assert "pip install 'bit_jax[tfds]'" in err.splitlines()[-1]
