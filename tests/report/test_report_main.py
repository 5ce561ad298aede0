"""`python -m bit_jax.report`: the path of the page, or one sentence."""

import os
import shutil

import pytest

from bit_jax.report import __main__ as command
from bit_jax.runtime import exits


def run(*arguments):
  return exits.run(command.main, ["report", *map(str, arguments)])


def test_it_prints_the_path_that_it_wrote(made, tmp_path, capsys):
  folder = shutil.copytree(made.folder, tmp_path / "run")
  assert run(folder) == 0
  assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
  page = (folder / "report.html").read_bytes()
  assert run(folder, f"--out={tmp_path / 'b.html'}") == 0
  assert capsys.readouterr().out == f"{tmp_path / 'b.html'}\n"
  assert (tmp_path / "b.html").read_bytes() == page


def test_damaged_files_are_warnings(made, tmp_path, capsys):
  folder = shutil.copytree(made.folder, tmp_path / "run")
  (folder / "config.json").write_text("nonsense")
  with (folder / "metrics.jsonl").open("a") as file:
    file.write("nonsense\n")
  (folder / "per_class.csv").unlink()  # as before the end of a run
  assert run(folder) == 0
  assert capsys.readouterr().err == (
    "warning: config.json is damaged; the page has only what could be read.\n"
    "warning: metrics.jsonl has 1 damaged line; the page has only what could be read.\n"
  )


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["nowhere"], "Folder nowhere not found"),
    (["empty"], "holds none of the files of a run"),
    (["file"], "Folder file not found"),
    (["run", "--out="], "--out needs a file"),
    (["run", "--out=nowhere/a.html"], "can't be written to nowhere/a.html (No such file"),
    (["run", "--out=empty"], "can't be written to empty (Is a directory"),
  ],
)
def test_mistakes_end_in_a_sentence(made, tmp_path, monkeypatch, capsys, arguments, said):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "empty").mkdir()
  (tmp_path / "file").write_text("x")
  os.symlink(made.folder, tmp_path / "run")
  assert run(*arguments) == exits.USER_ERROR
  error = capsys.readouterr()
  assert said in error.err
  assert error.err.count("\n") == 1
  assert error.out == ""


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--ouch"], ["a", "--ou=b"]])
def test_other_mistakes_show_the_usage(capsys, arguments):
  with pytest.raises(SystemExit) as ended:
    run(*arguments)
  assert ended.value.code == exits.USER_ERROR
  assert "usage: python -m bit_jax.report RUN" in capsys.readouterr().err


def test_help_has_examples_and_is_fast(printed_by):
  code = """
import sys
from bit_jax.report import __main__ as command
try:
  command.main(["report", "--help"])
except SystemExit as e:
  print(e.code, [name for name in ("jax", "numpy", "jinja2") if name in sys.modules])
"""
  said = printed_by(code)
  assert "python -m bit_jax.report /data/run1 --out=run1.html" in said
  assert said.splitlines()[-1] == "0 []"


def test_it_imports_no_tensorflow(made, printed_by, tmp_path):
  code = f"""
import sys
from bit_jax.report import __main__ as command
command.main(["report", {str(made.folder)!r}, "--out={tmp_path / "a.html"}"])
print([name for name in ("tensorflow", "matplotlib", "sklearn", "scipy") if name in sys.modules])
"""
  assert printed_by(code).splitlines()[-1] == "[]"
