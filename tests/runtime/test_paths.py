"""Paths with a tilde: home folders where there are any, and names of files otherwise."""

import argparse
import os
import pathlib
import pwd
import types

import pytest
import running

from bit_jax import weights
from bit_jax.data import __main__ as data_main
from bit_jax.data.sources import arrays, folder
from bit_jax.runs import run_folder
from bit_jax.runtime import errors, exits, paths
from experiments import report, sweep

NOBODY = "no-such-user"


@pytest.mark.parametrize("home", ["/home/me", "/home/me/", "/"])
def test_a_home_folder_is_put_in_its_place(home, monkeypatch):
  monkeypatch.setenv("HOME", home)
  root = pathlib.Path(home)
  for text, expected in (("~", root), ("~/", root), ("~/a, b/~c", root / "a, b" / "~c")):
    assert paths.named(text) == pathlib.Path(os.path.expanduser(text)) == expected
  entry = pwd.getpwuid(0)
  assert os.path.expanduser(f"~{entry.pw_name}/x") == os.path.join(entry.pw_dir, "x")


def test_without_the_variable_it_is_known_from_the_list_of_users(monkeypatch):
  monkeypatch.delenv("HOME", raising=False)
  monkeypatch.setattr(pwd, "getpwuid", lambda _: types.SimpleNamespace(pw_dir="/home/me"))
  assert paths.named("~/x") == pathlib.Path("/home/me/x")


def test_a_user_without_home(no_home):
  assert os.path.expanduser("~/x") == "~/x"
  with pytest.raises(errors.UserError, match=r"~/x can't be used: ~ is not a valid .* Set HOME"):
    paths.named("~/x")


def test_a_name_that_begins_with_a_tilde_is_itself(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("~b.jpg", f"~{NOBODY}/x", "a/~", "./~", "", "x~"):
    assert os.path.expanduser(name) == name
  pathlib.Path("~b.jpg").touch()
  assert paths.named("~b.jpg") == pathlib.Path("~b.jpg")
  assert paths.named(f"./~{NOBODY}/x") == pathlib.Path(f"~{NOBODY}/x")


@pytest.mark.parametrize(
  "use",
  [run_folder.open_folder, folder.find, arrays.describe_npz, weights.locate],
  ids=lambda f: f.__name__,
)
def test_a_path_of_nobody_is_refused(use, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match=f"~{NOBODY} is not a valid home folder"):
    use(f"~{NOBODY}/x.npz")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("main", "arguments"),
  [
    (data_main.main, ["check", f"~{NOBODY}/set"]),
    (data_main.main, ["check", "{tmp}", f"--out=~{NOBODY}/out"]),
    (sweep.main, ["--config=experiments/fewshot.py", f"--out=~{NOBODY}/out", "--dry_run"]),
    (report.main, [f"~{NOBODY}/runs"]),
    (report.main, ["{tmp}", f"--out=~{NOBODY}/out"]),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else value.__module__,
)
def test_an_argument_that_names_nobody_is_a_mistake(main, arguments, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  argv = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
  status = main(argv) if main is data_main.main else exits.run(main, ["command", *argv])
  assert status == exits.USER_ERROR
  (line,) = capsys.readouterr().err.splitlines()
  assert f"~{NOBODY} is not a valid home folder" in line
  assert not (running.ROOT / f"~{NOBODY}").exists()


def test_an_argument_of_argparse(monkeypatch, capsys):
  parser = argparse.ArgumentParser(prog="command")
  parser.add_argument("--out", type=paths.argument)
  monkeypatch.setenv("HOME", "/home/me")
  assert parser.parse_args(["--out=~/x"]).out == pathlib.Path("/home/me/x")
  with pytest.raises(SystemExit):
    parser.parse_args([f"--out=~{NOBODY}/x"])
  said = f"error: argument --out: The path ~{NOBODY}/x can't be used: ~{NOBODY} is not"
  assert said in capsys.readouterr().err
