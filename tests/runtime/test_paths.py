"""Paths with a tilde, which is a home folder where there is any, and URLs, which are refused."""

import argparse
import os
import pathlib
import pwd
import types

import pytest
import running

import bit_jax
from bit_jax import train, weights
from bit_jax.data import __main__ as data_main
from bit_jax.data import datasets, opening
from bit_jax.data.sources import arrays, folder
from bit_jax.inference import given_images, inputs
from bit_jax.runs import run_folder
from bit_jax.runtime import cache, errors, exits, paths
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


URLS = (
  *("s3://bucket/run", "S3://bucket/run", "gs://bucket", "hdfs://host:9000/x", "az://c/x"),
  *("https://host/x?key=1", "my_store://x", "simplecache::s3://bucket/x", " s3://bucket"),
  *("s3:/bucket/run", "gs:///bucket", "zip://a.zip::gs://bucket"),
)


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_refused_with_a_way(url):
  for text in (url, str(pathlib.Path(url))):  # `Path` makes one slash of two
    with pytest.raises(errors.UserError, match=r"it is a URL.*[Mm]ount .*gcsfuse or s3fs"):
      paths.named(text)


@pytest.mark.parametrize(
  ("url", "path"),
  [
    ("file:///a/b", "/a/b"),
    ("FILE:///a/b", "/a/b"),
    ("file://localhost/a/b", "/a/b"),
    ("file://LocalHost/a", "/a"),
    ("file:/a/b", "/a/b"),
    ("file:///a%20b/%C3%BC%25.jpg", "/a b/\u00fc%.jpg"),
    ("file:///a%FFb", "/a\udcffb"),  # a byte that is not UTF-8, as `os.fsdecode` has it
    ("file:///a#1?b", "/a#1?b"),
    ("file:///~/a", "/~/a"),
  ],
)
def test_a_file_url_is_its_path(url, path):
  assert paths.named(url) == pathlib.Path(path)
  assert paths.expanded(url) == path


@pytest.mark.parametrize(
  "url", ["file://host/a", "file://a", "file://", "file://~/a", "file:///%00"]
)
def test_a_file_url_without_a_path_of_this_machine_is_refused(url):
  with pytest.raises(errors.UserError, match="must be file:///PATH"):
    paths.named(url)


def test_a_folder_that_is_called_like_a_scheme(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("a:").mkdir()
  for text in ("./a:/x", ".//a:/x", f"{tmp_path}/a:/x"):
    path = paths.named(text)
    path.write_text(text)
    assert pathlib.Path(tmp_path, "a:", "x").read_text() == text
    assert paths.named(str(path)) == path  # it may be named twice
  with pytest.raises(errors.UserError, match=r"for a local folder called a:, \./a:/x\)"):
    paths.named("a:/x")
  for text in ("a:", "x/a:/b", "12:30/x", "a:b/c", "://x"):
    assert paths.named(text) == pathlib.Path(text)


@pytest.mark.parametrize(
  "use",
  [
    *(run_folder.open_folder, folder.find, arrays.describe_npz, weights.locate, weights.load),
    *(bit_jax.load, bit_jax.fine_tune, given_images.source),
    lambda url: given_images.source([url]),
    lambda url: bit_jax.fine_tune([url], ["a"]),
    lambda url: bit_jax.fine_tune("digits", workdir=url),
    lambda url: bit_jax.fine_tune("digits", workdir=pathlib.Path(url)),
    lambda url: opening.open_set(datasets.Request("cifar10", data_dir=url)),
    lambda url: inputs.find([url]),
    lambda url: inputs.find(["-"], lambda: url.encode()),
  ],
)
def test_every_path_of_a_user_may_be_a_mistaken_url(use, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  more = {} if use is not weights.load else {"architecture": None, "head": "keep", "num_classes": 1}
  with pytest.raises(errors.UserError, match=r"^s3:/+bucket/x\.npz can't be .*gcsfuse or s3fs"):
    use("s3://bucket/x.npz", **more)
  assert list(tmp_path.iterdir()) == []


def test_no_command_writes_beside_a_url(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for more in ([], ["--dry_run"]):
    argv = ["train", "--config=configs/quickstart.py", "--workdir=s3://bucket/run", *more]
    assert exits.run(train.main, argv) == exits.USER_ERROR
    assert "s3://bucket/run can't be used" in capsys.readouterr().err
  argv = ["train", "--config=configs/folder.py:path=gs://bucket/set", "--dry_run"]
  assert exits.run(train.main, argv) == exits.USER_ERROR
  assert "gs://bucket/set can't be used" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
  monkeypatch.setenv(cache.ENVIRONMENT_VARIABLE, "s3://bucket/cache")
  with pytest.raises(errors.UserError, match=r"No cache directory found\. s3://bucket/cache can't"):
    cache.directory()


def test_images_at_file_urls(tmp_path, monkeypatch):
  place = tmp_path / "my photos" / "cat"
  place.mkdir(parents=True)
  (place / "1.jpg").touch()
  url = place.parent.as_uri()
  assert "my%20photos" in url
  assert inputs.find([url]).files.paths == (str(place / "1.jpg"),)
  assert inputs.find(["-"], f"{url}/cat/1.jpg".encode).files.paths == (str(place / "1.jpg"),)
  assert folder.find(url).root == place.parent
  rows = f"path,label\n{url}/cat/1.jpg,cat\ns3://bucket/2.jpg,cat\n"
  (tmp_path / "set.csv").write_text(rows)
  with pytest.raises(errors.UserError, match=r"^Line 3 of .*set\.csv: s3://bucket/2\.jpg can't be"):
    folder.find(str(tmp_path / "set.csv"))
  (tmp_path / "set.csv").write_text(rows.replace("s3://bucket/2.jpg,cat\n", ""))
  found = folder.find((tmp_path / "set.csv").as_uri())
  assert [e.path for e in found.entries] == ["my photos/cat/1.jpg"]


@pytest.mark.parametrize("text", ["~\0/x", "~no\0body", "a\0b", "\0"])
def test_a_null_character_is_refused(text):
  with pytest.raises(errors.UserError, match="can't be used: no file has a null character"):
    paths.named(text)
