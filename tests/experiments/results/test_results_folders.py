"""Finding run folders among all kinds of files."""

import errno

import pytest
import run_folders

from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from experiments.results import folders


def test_finds_runs_at_any_depth_in_the_order_of_their_names(tmp_path):
  for name in ("b/2", "a", "b/10"):
    run_folders.dump(tmp_path / name / "config.json", {"seed": 1})
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "readme.json").write_text("{}")
  found, closed = folders.find(tmp_path)
  assert [f.name for f in found] == ["a", "b/10", "b/2"]
  assert found[0].contents == {"config.json": {"seed": 1}}
  assert found[0].faults == {}
  assert closed == []


def test_the_folder_itself_may_be_a_run(tmp_path):
  run_folders.dump(tmp_path / "result.json", {"top1": 0.5})
  assert [f.name for f in folders.find(tmp_path)[0]] == ["."]


@pytest.mark.parametrize(
  "content",
  ['{"top1": 0.', "", b"\xff\xfe\x00", "[" * 100_000, "9" * 5_000, "[1, 2]", "null"],
)
def test_what_cannot_be_read_has_a_reason(tmp_path, content):
  path = tmp_path / "run" / "result.json"
  path.parent.mkdir()
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  run_folders.dump(tmp_path / "run" / "config.json", {"seed": 1})
  (found,), _ = folders.find(tmp_path)
  assert found.faults == {"result.json": "is damaged"}
  assert found.contents == {"config.json": {"seed": 1}}


def test_a_folder_of_that_name_is_no_file(tmp_path):
  (tmp_path / "config.json").mkdir()
  assert folders.find(tmp_path) == ([], [])


def test_links_are_not_followed_but_listed(tmp_path):
  run_folders.dump(tmp_path / "runs" / "one" / "config.json", {})
  (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs", target_is_directory=True)
  found, closed = folders.find(tmp_path / "runs")
  assert [f.name for f in found] == ["one"]
  assert closed == [("again", "is a link; links are not followed")]


def test_a_link_to_itself_and_one_to_nowhere(tmp_path):
  run_folders.dump(tmp_path / "run" / "config.json", {"seed": 1})
  (tmp_path / "run" / "result.json").symlink_to("result.json")
  (tmp_path / "run" / "sweep.json").symlink_to("nowhere")
  (found,), _ = folders.find(tmp_path)
  assert list(found.faults) == ["result.json"]
  assert found.faults["result.json"].startswith("can't be read (Too many levels")


def test_what_may_not_be_read(tmp_path, monkeypatch):
  def refuse(path):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))

  run_folders.dump(tmp_path / "run" / "config.json", {"seed": 1})
  monkeypatch.setattr(run_folder, "read_json", refuse)
  (found,), _ = folders.find(tmp_path)
  assert found.faults["config.json"] == "can't be read (Permission denied)"


def test_a_name_that_is_no_text(tmp_path):
  run_folders.dump(tmp_path / "run\udcff" / "config.json", {})
  (found,), _ = folders.find(tmp_path)
  assert found.name == "run?"


def test_no_such_folder(tmp_path):
  with pytest.raises(errors.UserError, match=r"nowhere not found"):
    folders.find(tmp_path / "nowhere")
