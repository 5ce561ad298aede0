"""The configs as a package: found from any folder, under either name, and installed once."""

import sys

import pytest
import running

from bit_jax import configs, train
from bit_jax.runtime import errors, user_files

DRY = ("--dry_run", "--config.microbatch=8")


def _forget():
  for name in [n for n in sys.modules if n.partition(".")[0] == "configs"]:
    del sys.modules[name]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
  """An empty current folder; the checkout's `configs` can't be imported, as with the wheel."""
  monkeypatch.chdir(tmp_path)
  others = [p for p in sys.path if p not in ("", str(running.ROOT))]
  monkeypatch.setattr(sys, "path", ["", *others])
  monkeypatch.setattr(configs, "__path__", list(configs.__path__))
  _forget()
  yield tmp_path
  _forget()


def test_the_package_is_the_folder():
  assert user_files.CONFIGS.samefile(running.ROOT / "configs")
  assert (running.ROOT / "bit_jax/configs").readlink().as_posix() == "../configs"


@pytest.mark.parametrize("folder", ["configs", "./configs", "bit_jax/configs"])
def test_a_config_that_does_not_exist_here_is_the_one_of_the_package(elsewhere, capsys, folder):
  train.main(["train", f"--config={folder}/quickstart.py", *DRY])
  assert "quickstart" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["other/quickstart.py", "configs/x.py", "/configs/quickstart.py"])
def test_other_paths_are_not_looked_up(elsewhere, path):
  with pytest.raises(errors.UserError, match=f"{path}.*not found"):
    train.main(["train", f"--config={path}"])


OWN = """
from {package} import base, quickstart
def get_config(arg=None):
  return quickstart.get_config(arg)
"""


@pytest.mark.parametrize("package", ["configs", "bit_jax.configs"])
@pytest.mark.parametrize("folder", [".", "configs"])
def test_a_users_own_config_imports_those_of_the_package(elsewhere, capsys, folder, package):
  path = elsewhere / folder / "own.py"
  path.parent.mkdir(exist_ok=True)
  path.write_text(OWN.format(package=package))
  train.main(["train", f"--config={folder}/own.py", *DRY])
  assert "quickstart" in capsys.readouterr().out


def test_a_users_own_configs_import_each_other(elsewhere, capsys):
  (elsewhere / "configs").mkdir()
  (elsewhere / "configs/first.py").write_text(OWN.format(package="configs"))
  (elsewhere / "configs/second.py").write_text(
    "from configs import first\nget_config = first.get_config\n"
  )
  train.main(["train", "--config=configs/second.py", *DRY])
  assert "quickstart" in capsys.readouterr().out
