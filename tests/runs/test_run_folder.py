"""The run folder: what is written how, and which runs may be continued in it."""

import errno
import fcntl
import json
import os
import subprocess

import jax
import numpy as np
import pytest

from bit_jax.runs import run_folder
from bit_jax.runtime import errors

CONFIG = {"model": "R14x0.5", "decay_steps": (2, 4), "base_lr": 0.003, "shots": None}


def begin(folder):
  """Leaves what a run leaves once its data and weights are loaded."""
  run_folder.record_config(folder, CONFIG, dict)
  run_folder.write_json(folder / run_folder.ENVIRONMENT, {})


def test_a_new_folder_holds_the_config(tmp_path):
  folder = run_folder.open_folder(str(tmp_path / "a" / "b"))
  assert folder == tmp_path / "a" / "b"
  run_folder.record_config(folder, CONFIG, dict)
  assert json.loads((folder / "config.json").read_text()) == {**CONFIG, "decay_steps": [2, 4]}
  assert [p.name for p in folder.iterdir()] == ["config.json"]


def test_the_path_is_absolute_and_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path)
  assert run_folder.open_folder("~/r") == tmp_path / "home" / "r"
  assert run_folder.open_folder("r") == tmp_path / "r"


def test_the_same_config_may_go_on(tmp_path):
  begin(tmp_path)
  before = (tmp_path / "config.json").stat().st_mtime_ns
  assert run_folder.record_config(tmp_path, CONFIG, dict) is True
  assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_another_config_is_refused_and_the_fields_are_named(tmp_path):
  begin(tmp_path)
  other = {**CONFIG, "base_lr": 0.1, "decay_steps": (2, 5)}
  with pytest.raises(errors.UserError) as e:
    run_folder.record_config(tmp_path, other, dict)
  message = str(e.value)
  assert "base_lr: 0.003 there, 0.1 now" in message
  assert "decay_steps: [2, 4] there, [2, 5] now" in message
  assert "model" not in message
  assert "--workdir" in message
  assert json.loads((tmp_path / "config.json").read_text())["base_lr"] == 0.003


def test_an_empty_config_is_named(tmp_path):
  begin(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(errors.UserError, match=r"config\.json is empty or damaged: restore it, or"):
    run_folder.record_config(tmp_path, CONFIG, dict)


def test_a_run_that_never_began_is_replaced(tmp_path):
  """A mistake in the weights' path is corrected with the same --workdir."""
  assert run_folder.record_config(tmp_path, CONFIG, dict) is False
  assert run_folder.record_config(tmp_path, {**CONFIG, "base_lr": 0.1}, dict) is False
  assert json.loads((tmp_path / "config.json").read_text())["base_lr"] == 0.1


@pytest.mark.parametrize("lacking", ["config.json", "environment.json"])
def test_checkpoints_without_the_record_of_what_they_are_of_are_not_resumed(tmp_path, lacking):
  run_folder.record_config(tmp_path, {"a": 1}, dict)
  (tmp_path / "environment.json").write_text("{}")
  (tmp_path / "checkpoints" / "20").mkdir(parents=True)
  run_folder.record_config(tmp_path, {"a": 1}, dict)
  (tmp_path / lacking).unlink()
  with pytest.raises(
    errors.UserError, match=rf"has checkpoints but no {lacking}, .* delete the fo"
  ):
    run_folder.record_config(tmp_path, {"a": 1}, dict)


def test_a_field_that_only_one_of_two_versions_has_is_named(tmp_path):
  begin(tmp_path)
  with pytest.raises(errors.UserError, match=r"momentum: not set there, 0\.5 now"):
    run_folder.record_config(tmp_path, {**CONFIG, "momentum": 0.5}, dict)
  without = {k: v for k, v in CONFIG.items() if k != "base_lr"}
  with pytest.raises(errors.UserError, match=r"base_lr: 0\.003 there, not set now"):
    run_folder.record_config(tmp_path, without, dict)


def test_a_field_that_was_left_open_and_is_gone_does_not_matter(tmp_path):
  begin(tmp_path)
  run_folder.record_config(tmp_path, {k: v for k, v in CONFIG.items() if k != "shots"}, dict)


@pytest.mark.parametrize("below", ["file", "file/sub", "file/sub/deeper"])
def test_a_folder_that_cannot_be_made(tmp_path, below):
  (tmp_path / "file").write_text("no folder")
  with pytest.raises(errors.UserError, match=r"can't be written \(.*\): choose another --workdir"):
    run_folder.open_folder(str(tmp_path / below))


def test_a_folder_whose_path_is_not_utf8_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="not UTF-8, which checkpoints need: choose another"):
    run_folder.open_folder(os.fsdecode(os.fsencode(tmp_path) + b"/r\xe9sum\xe9"))
  assert list(tmp_path.iterdir()) == []
  assert run_folder.open_folder(str(tmp_path / "猫")).is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(errors.UserError, match="can't be written"):
    run_folder.open_folder(str(tmp_path))


@pytest.mark.parametrize("below", ["", "runs/a"])
def test_a_run_folder_among_the_images_is_refused(tmp_path, monkeypatch, below):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match=r"inside the folder of images .* --workdir outside"):
    run_folder.open_folder(str(tmp_path / below), images=".")
  assert not list(tmp_path.iterdir())


def test_a_run_folder_beside_the_images_or_a_list_of_them(tmp_path):
  (tmp_path / "photos").mkdir()
  (tmp_path / "list.csv").touch()
  for images in ("photos", "list.csv", "absent"):
    path = str(tmp_path / images)
    assert run_folder.open_folder(str(tmp_path / "photos-run"), images=path).is_dir()


def test_other_processes_write_nothing(tmp_path):
  folder = run_folder.open_folder(str(tmp_path / "a"), create=False)
  assert folder == tmp_path / "a"
  assert not folder.exists()


def test_finished(tmp_path):
  assert run_folder.finished(tmp_path) is None
  run_folder.write_json(tmp_path / run_folder.RESULT, {"top1": 0.5})
  assert run_folder.finished(tmp_path) == {"top1": 0.5}


@pytest.mark.parametrize(
  "damage", [b'{"top1": ', b"", b"\0" * 9, b"[]", b"null", b"\xff", b"[" * 99999]
)
def test_damaged_json_is_a_sentence(tmp_path, damage):
  (tmp_path / run_folder.RESULT).write_bytes(damage)
  with pytest.raises(errors.UserError, match=r"result\.json is damaged .*: delete it"):
    run_folder.finished(tmp_path)


def test_json_of_numpy_values_is_written_as_a_whole(tmp_path):
  value = {"a": np.float32(0.25), "b": np.arange(3), "c": np.int64(7), "d": np.bool_(True)}
  run_folder.write_json(tmp_path / "x.json", value)
  assert run_folder.read_json(tmp_path / "x.json") == {"a": 0.25, "b": [0, 1, 2], "c": 7, "d": True}
  assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
  with pytest.raises(AttributeError):
    run_folder.write_json(tmp_path / "x.json", {"a": object()})
  assert run_folder.read_json(tmp_path / "x.json")["c"] == 7


def test_tables_hold_any_name_of_a_file(tmp_path):
  name = os.fsdecode(b"caf\xe9 \xe7\x8c\xab")  # not all of it is UTF-8
  run_folder.write_csv(tmp_path / "x.csv", [("path", "class"), (name, 'a, "b"'), (3, "")])
  assert (tmp_path / "x.csv").read_bytes() == (
    b'path,class\r\n%b,"a, ""b"""\r\n3,\r\n' % os.fsencode(name)
  )


def test_environment():
  found = run_folder.describe_environment(data="digits 1", weights_sha256=None)
  assert found["packages"]["jax"] == jax.__version__
  assert found["packages"]["numpy"] == np.__version__
  assert (found["num_devices"], found["num_processes"]) == (4, 1)
  assert found["platform"] == "cpu"
  assert (found["data"], found["weights_sha256"]) == ("digits 1", None)
  json.dumps(found)


def test_the_commit_is_that_of_the_code_wherever_one_stands(tmp_path, monkeypatch):
  line = ["git", "-C", os.path.dirname(run_folder.__file__), "rev-parse", "HEAD"]
  done = subprocess.run(line, capture_output=True, text=True)
  expected = done.stdout.strip() if done.returncode == 0 else None
  monkeypatch.chdir(tmp_path)
  commit = run_folder.describe_environment()["commit"]
  assert (commit and commit.removesuffix("+")) == expected


def test_without_git_there_is_no_commit(monkeypatch):
  monkeypatch.setenv("PATH", "")
  assert run_folder.describe_environment()["commit"] is None


def test_a_field_outside_the_identity_may_change(tmp_path):
  begin(tmp_path)
  run_folder.record_config(
    tmp_path,
    {**CONFIG, "log_every": 7},
    lambda config: {k: v for k, v in config.items() if k != "log_every"},
  )


def test_one_process_at_a_time(tmp_path):
  with (
    run_folder.lock(tmp_path),
    pytest.raises(errors.UserError, match="Another process is running in"),
    run_folder.lock(tmp_path),
  ):
    pass
  with run_folder.lock(tmp_path):
    pass


def test_a_folder_without_locks_is_used_and_a_lock_file_that_cannot_be_opened_is_told(
  tmp_path, monkeypatch
):
  def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", flock)
  with run_folder.lock(tmp_path):
    (tmp_path / "inside").touch()
  (tmp_path / ".lock").unlink()
  (tmp_path / ".lock").mkdir()
  with (
    pytest.raises(errors.UserError, match=r"The lock file .*/\.lock can't be written \(Is a dir"),
    run_folder.lock(tmp_path),
  ):
    pass


ENVIRONMENT = {
  "data": "v1",
  "weights_sha256": "ab",
  "dtype": "float32",
  "started": "t0",
  "machine": "Linux, 2 cores",
  "device": "cpu",
  "num_devices": 4,
  "commit": "c0",
  "python": "3",
}


def test_a_resumed_run_keeps_its_beginning_and_adds_to_it(tmp_path):
  run_folder.record_environment(tmp_path, ENVIRONMENT)
  run_folder.record_environment(
    tmp_path, {**ENVIRONMENT, "started": "t1", "commit": "c1", "python": "4"}
  )
  recorded = json.loads((tmp_path / "environment.json").read_text())
  part = {k: ENVIRONMENT[k] for k in ("machine", "device", "num_devices")}
  part |= {"started": "t1", "commit": "c1"}
  assert recorded == {**ENVIRONMENT, "resumed": [part]}


def test_an_environment_that_somebody_else_wrote(tmp_path):
  run_folder.write_json(
    tmp_path / "environment.json", {k: ENVIRONMENT[k] for k in ("data", "dtype")}
  )
  with pytest.raises(errors.UserError, match="with weights_sha256 None, which is now ab"):
    run_folder.record_environment(tmp_path, ENVIRONMENT)
  run_folder.record_environment(tmp_path, {**ENVIRONMENT, "weights_sha256": None})
  assert len(json.loads((tmp_path / "environment.json").read_text())["resumed"]) == 1


def test_what_may_change_the_rounding_is_compared_and_stays_on_record(tmp_path):
  def record(variables, jax_version="0.10.2", **more):
    packages = {"jax": jax_version, "numpy": "2"}
    environment = {**ENVIRONMENT, "packages": packages, "variables": variables, **more}
    return run_folder.record_environment(tmp_path, environment)

  assert record({"XLA_FLAGS": "--xla_a=1"}) == []
  assert record({"XLA_FLAGS": "--xla_a=1"}) == []
  (flags,) = record({"NVIDIA_TF32_OVERRIDE": "0", "XLA_FLAGS": "--xla_a=1"})
  assert (
    "started with NVIDIA_TF32_OVERRIDE not set and resumed with NVIDIA_TF32_OVERRIDE 0" in flags
  )
  first, second, third = record({}, "0.11.0")
  assert first == flags  # although it is as it was
  assert "with XLA_FLAGS --xla_a=1 and resumed with XLA_FLAGS not set:" in second
  assert "with jax 0.10.2 and resumed with jax 0.11.0:" in third
  assert record({"XLA_FLAGS": "--xla_a=1"}) == [first, second, third]
  recorded = run_folder.read_json(tmp_path / run_folder.ENVIRONMENT)
  changed = [part.get("changed") for part in recorded["resumed"]]
  assert changed == [
    None,
    {"NVIDIA_TF32_OVERRIDE": "0"},
    {"XLA_FLAGS": None, "jax": "0.11.0"},
    None,
  ]


def test_an_environment_without_variables_is_not_compared(tmp_path):
  run_folder.record_environment(tmp_path, ENVIRONMENT)
  assert (
    run_folder.record_environment(tmp_path, {**ENVIRONMENT, "variables": {"XLA_FLAGS": "-a"}}) == []
  )


def test_the_order_of_a_run_is_that_which_it_was_begun_with(tmp_path):
  (tmp_path / "old").mkdir()
  run_folder.record_environment(tmp_path / "old", ENVIRONMENT)  # version 0.1 did not record it
  run_folder.record_environment(tmp_path / "old", {**ENVIRONMENT, "order": 2})
  assert run_folder.order_version(tmp_path / "old") == 1
  run_folder.record_environment(tmp_path, {**ENVIRONMENT, "order": 3})
  assert run_folder.order_version(tmp_path) == 3
  with pytest.raises(errors.UserError, match="newer version of bit_jax"):
    run_folder.record_environment(tmp_path, {**ENVIRONMENT, "order": 2})


@pytest.mark.parametrize("name", ["data", "weights_sha256", "dtype"])
def test_a_run_is_not_continued_on_something_else(tmp_path, name):
  run_folder.record_environment(tmp_path, ENVIRONMENT)
  with pytest.raises(errors.UserError, match=rf"with {name} .* now other"):
    run_folder.record_environment(tmp_path, {**ENVIRONMENT, name: "other"})


def test_a_finished_run_is_not_taken_for_one_of_other_data(tmp_path):
  run_folder.require_data(tmp_path, "v2")  # nothing is on record
  run_folder.record_environment(tmp_path, ENVIRONMENT)
  run_folder.require_data(tmp_path, "v1")
  run_folder.require_data(tmp_path, None)
  with pytest.raises(errors.UserError, match=r"data v1, .* now v2"):
    run_folder.require_data(tmp_path, "v2")


def test_images_of_the_same_names_and_sizes_are_compared_by_content(tmp_path):
  now = {**ENVIRONMENT, "content": "ab"}
  (tmp_path / "old").mkdir()
  run_folder.record_environment(tmp_path / "old", ENVIRONMENT)  # of an earlier version
  run_folder.record_environment(tmp_path / "old", now)
  run_folder.require_data(tmp_path / "old", "v1", None, "ab")
  run_folder.record_environment(tmp_path, now)
  run_folder.record_environment(tmp_path, now)
  run_folder.require_data(tmp_path, "v1", None, "ab")
  said = "started with other images: files of the same names and sizes"
  with pytest.raises(errors.UserError, match=said):
    run_folder.record_environment(tmp_path, {**now, "content": "cd"})
  with pytest.raises(errors.UserError, match=said):
    run_folder.require_data(tmp_path, "v1", None, "cd")


VAL = "val, sha256 ab"


@pytest.mark.parametrize(
  ("before", "now", "said"),
  [
    ({}, {"chosen_on": VAL}, f"model selection on the test images, which is now {VAL}"),
    ({"chosen_on": VAL}, {"chosen_on": None}, f"model selection on {VAL}, which is now the test"),
    ({"chosen_on": VAL}, {"chosen_on": "val, sha256 cd"}, "which is now val, sha256 cd"),
  ],
)
def test_a_run_is_not_continued_where_it_would_choose_on_other_images(tmp_path, before, now, said):
  """Without a record, an earlier version began it, which trained on the validation images too."""
  run_folder.record_environment(tmp_path, {**ENVIRONMENT, **before})
  with pytest.raises(errors.UserError, match=said):
    run_folder.record_environment(tmp_path, {**ENVIRONMENT, **now})
  run_folder.record_environment(tmp_path, {**ENVIRONMENT, **before})


def test_a_finished_run_is_not_taken_for_one_that_chose_on_other_images(tmp_path):
  for name in ("old", "new"):
    (tmp_path / name).mkdir()
  run_folder.record_environment(tmp_path / "old", ENVIRONMENT)
  run_folder.require_data(tmp_path / "old", "v1", VAL)  # an earlier version's result is still found
  run_folder.record_environment(tmp_path / "new", {**ENVIRONMENT, "chosen_on": VAL})
  run_folder.require_data(tmp_path / "new", "v1", VAL)
  for other in ("val, sha256 cd", None):
    said = f"model selection on {VAL}, which is now {other or 'the test images'}"
    with pytest.raises(errors.UserError, match=said):
      run_folder.require_data(tmp_path / "new", "v1", other)


def test_a_result_without_its_fields_is_called_damaged(tmp_path):
  part = {"top1": 1, "num_train": 1, "num_test": 1, "left_out": {}, "warnings": []}
  with pytest.raises(errors.UserError, match=r"is damaged \(it has no loss, no steps\): delete it"):
    run_folder.require_complete(tmp_path, part)


@pytest.mark.parametrize(
  "wrong",
  [
    {"order": "x"},
    {"order": None},
    {"resumed": 5},
    {"resumed": [1]},
    {"packages": "x"},
    {"resumed": [{"changed": {"jax": []}}]},
    {"resumed": [{"changed": 1}]},
  ],
)
def test_an_environment_of_other_types_is_damaged(tmp_path, wrong):
  run_folder.write_json(tmp_path / "environment.json", {**ENVIRONMENT, **wrong})
  with pytest.raises(errors.UserError, match=r"environment\.json is damaged \("):
    run_folder.record_environment(tmp_path, ENVIRONMENT)


def test_a_result_of_other_types_is_damaged(tmp_path):
  run_folder.write_json(tmp_path / "result.json", {"steps": 5, "top1": "x"})
  with pytest.raises(errors.UserError, match=r"result\.json is damaged \(top1 is 'x'\)"):
    run_folder.finished(tmp_path)
