"""Every command and every piece of Python in README and docs is run, or run as far as it can be.

Training is run with --dry_run, in this process; what needs the network, another machine or hours is
listed in `NOT_RUN` with the reason, and of the others some are run for --help.
"""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import running
from PIL import Image

from bit_jax import train
from bit_jax.runtime import exits, signals
from bit_jax.training import fine_tuning

PAGES = sorted([running.ROOT / "README.md", *(running.ROOT / "docs").rglob("*.md")])
# {beginning of a command: why it isn't run}
NOT_RUN = {
  "source ": "it changes the shell",
  "pip wheel": "tests/packaging builds the wheel",
  "python -m bit_jax.weights download": "it needs the network",
  "python -m bit_jax.weights verify": "it needs a released checkpoint",
  "python -m experiments.accelerators.compile_program": "it needs a GPU's compiler",
  ".venv/bin/python -m pytest": "it runs tests",
  "srun ": "it needs Slurm",
  "JAX_COORDINATOR_ADDRESS=": "it waits for another process",
}
# Those that import TensorFlow, take long, or need results: their options are parsed, not more.
ONLY_HELP = (
  *("bit_jax.data doctor", "experiments.verify_released", "experiments.report"),
  *("bit_jax.evaluate", "bit_jax.export", "experiments.benchmarks.gpu"),
)


def blocks(language):
  """Yields (page, text) of every fenced block of a language."""
  for page in PAGES:
    for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S):
      yield page, found[1]


def commands():
  """Returns every command of the pages, in one line, without comments."""
  found = {}
  for page, block in blocks("sh"):
    for line in block.replace("\\\n", " ").splitlines():
      if words := shlex.split(line, comments=True):
        found.setdefault(tuple(words), page.name)
  return found


def text_of(words):
  return " ".join(words)


def not_run(words):
  return any(text_of(words).startswith(begin) for begin in NOT_RUN)


COMMANDS = [words for words in commands() if not not_run(words)]
TRAINING = [w for w in COMMANDS if w[:3] == ("python", "-m", "bit_jax.train")]
PIP = [w for w in COMMANDS if w[:2] == ("pip", "install")]
MAKE = [w for w in COMMANDS if w[0] == "make"]
OTHERS = [w for w in COMMANDS if w not in {*TRAINING, *PIP, *MAKE}]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
  """A home folder with photos and dice, a run's files, and arrays."""
  folder = tmp_path_factory.mktemp("home")
  random = np.random.default_rng(0)
  for kind in ("photos", "dice"):
    for name in ("one", "two"):
      (folder / kind / name).mkdir(parents=True)
      for i in range(15):
        picture = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        picture.save(folder / kind / name / f"{i}.png")
  shutil.copy(folder / "photos/one/0.png", folder / "cat.jpg")
  labels = np.arange(40) % 2
  images = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
  np.savez(
    folder / "images.npz",
    train_images=images,
    train_labels=labels,
    test_images=images[:4],
    test_labels=labels[:4],
  )
  shutil.copytree(running.ROOT / "tests/earlier_runs/0.1/finished", folder / "runs/flowers")
  shutil.copytree(folder / "runs/flowers", folder / "runs/photos")
  return folder


@pytest.fixture
def at_home(home, monkeypatch):
  monkeypatch.chdir(home)
  monkeypatch.setenv("HOME", str(home))
  return home


def run_module(monkeypatch, words):
  """Runs `python -m MODULE ...` in this process; returns the exit status."""
  monkeypatch.setattr(sys, "argv", list(words[2:]))
  for name in (words[2], f"{words[2]}.__main__"):  # what other tests have imported runs again
    if not hasattr(sys.modules.get(name), "__path__"):
      monkeypatch.delitem(sys.modules, name, raising=False)
  try:
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)
  except SystemExit as e:
    return e.code or 0
  finally:
    signals.end()
  return 0


def test_the_pages_have_commands_of_every_kind():
  assert len(TRAINING) > 10
  assert len(OTHERS) > 5
  assert {"quickstart", "test", "bench"} <= {words[-1] for words in MAKE}


@pytest.mark.parametrize("words", TRAINING, ids=text_of)
def test_training(at_home, capsys, words):
  argv = ["train", *words[3:], "--dry_run"]
  assert exits.run(train.main, argv) == 0, capsys.readouterr().err
  assert "learning rate" in capsys.readouterr().out


@pytest.mark.parametrize("words", MAKE, ids=text_of)
def test_targets_of_make(words):
  line = ["make", "-n", *words[1:]]
  done = subprocess.run(line, cwd=running.ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", PIP, ids=text_of)
def test_extras_exist(words):
  project = tomllib.loads((running.ROOT / "pyproject.toml").read_text())["project"]
  assert words[2].startswith((".", "bit_jax[", "dist/"))
  if words[2].startswith("dist/"):
    assert words[2] == f"dist/bit_jax-{project['version']}-py3-none-any.whl"
  for extras in re.findall(r"\[(.*)\]", words[2]):
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("words", OTHERS, ids=text_of)
def test_other_commands(at_home, monkeypatch, capsys, words):
  assert words[:2] == ("python", "-m"), "run it here, or list it with the reason in NOT_RUN"
  if text_of(words[2:]).startswith(ONLY_HELP):
    options = [w.partition("=")[0] for w in words[3:] if w.startswith("--")]
    sub = [w for w in words[3:4] if words[2] == "bit_jax.data"]
    assert run_module(monkeypatch, [*words[:3], *sub, "--help"]) == 0
    shown = capsys.readouterr().out
    assert [option for option in options if option not in shown] == []
    return
  if words[2] == "experiments.sweep":
    monkeypatch.chdir(running.ROOT)
    words = [*words, *(() if "--dry_run" in words else ("--dry_run",))]
  if words[2] == "bit_jax.probe":  # the released checkpoint would be downloaded
    words = [w.replace("BiT-M-R50x1", "R14x0.5-CIFAR100") for w in words]
  if "model.npz" in words:
    asset = next((running.ROOT / "bit_jax/weights/assets").glob("*.npz"))
    shutil.copy(asset, at_home / "model.npz")
  if words[2] == "bit_jax.report":
    run = running.ROOT / "tests/earlier_runs/0.1/finished"
    shutil.copytree(run, at_home / words[3], dirs_exist_ok=True)
  assert run_module(monkeypatch, words) == 0, capsys.readouterr().err
  assert capsys.readouterr().out


def test_the_python_of_the_pages_runs(at_home, monkeypatch, capsys):
  monkeypatch.setattr(fine_tuning, "run", lambda *_: {"top1": 0.5})
  np.savez("labelled.npz", features=np.zeros((4, 8)), labels=np.arange(4))  # as `embed` writes it
  ran = []
  for page, block in blocks("python"):
    names = {}
    exec(compile(block, page, "exec"), names)
    ran.append(page.stem)
    printed = capsys.readouterr().out
    if page.stem == "sweeps":
      assert len(list(names["get_runs"]())) == 10
    elif page.stem == "checkpoints":
      assert printed == "golden retriever\n"
    elif "tuned" in names:
      assert printed.splitlines()[-1].startswith("50.0% ")
    elif page.stem == "README":
      assert printed.strip() in names["classifier"].class_names
    elif page.stem == "python":
      assert len(printed.splitlines()) == len(names["features"]) == 30
  assert ran == ["README", "checkpoints", "predicting", "python", "python", "sweeps"]
