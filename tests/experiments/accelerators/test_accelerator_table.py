"""The table of compiled programs: which there are, what is compiled again, and the page."""

import collections
import sys

import pytest

from bit_jax.runtime import errors
from experiments.accelerators import __main__ as table
from experiments.accelerators import cases, results

MADE_OF = {"versions": {"jax": "1"}, "code": "a", "counter": "a", "target": "a", "flags": ""}
CASE = cases.Case("h100", 1, "R50x1", 480)


def record(case=CASE, **changes):
  return {
    "case": {**vars(case)},
    "versions": {"jax": "1", "jax-cuda13-plugin": "1"},
    "code": "a",
    "counter": "a",
    "target": "a",
    "flags": "",
    "images": 128,
    "whole": False,
    "remat": False,
    "budget": 50e9,
    "larger": 256,
    "larger_used": 60e9,
    "used": 2.6e10,
    "classes": 1000,
    "dtype": "bfloat16",
    "kind": "H100",
    "arguments": 2e8,
    "temporaries": 2.5e10,
    "bytes": 2.6e10,
    "moved": 1.6e9,
    "ideal": 1.4e9,
    "kernels": 1600,
    "flops": None,
    "by_kind": [],
    "seconds": 60,
    **changes,
  }


@pytest.fixture
def compiled(monkeypatch, tmp_path):
  """A compiler that only notes what it is asked for, with a table of its own; returns the notes."""
  notes = []
  monkeypatch.setattr(results, "PATH", tmp_path / "results.jsonl")
  monkeypatch.setattr(results, "_PAGE", tmp_path / "results.md")
  monkeypatch.setattr(results, "made_of", lambda *_: dict(MADE_OF))

  def fake(case, known):
    notes.append((case.name, bool(known)))
    return {**known, **figures(case)}

  monkeypatch.setattr(table, "_compile", fake)
  return notes


def figures(case, **changes):
  """Returns what the compilation of a case finds."""
  return {k: v for k, v in record(case, **changes).items() if k not in (*MADE_OF, "case")}


def run(*arguments):
  return table.main(["", *arguments])


def test_the_table_has_the_programs_that_matter():
  every = cases.table()
  assert len(set(every)) == len(every) == 66 + 2
  assert len({case.name for case in every}) == 66 + 2
  one = collections.Counter(case.model for case in every if case.target in ("h100", "v5e"))
  assert set(one) == {"R14x0.5", "R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4"}
  assert {case.target for case in every if case.model == "R152x4"} >= {"a100", "v4", "v5p", "v6e"}
  assert {case.devices for case in every if case.target == "v5e"} == {1, 4, 16}
  assert sum(case.dtype == "float32" for case in every) == 2
  assert [case.target for case in cases.small()] == ["h100", "v5e"]


def test_what_is_known_is_not_compiled_again(compiled, monkeypatch, capsys):
  name = "1 x h100 R50x1 480 px training"
  assert run("--only", "h100 R50x1 training 480 1") == 0
  assert compiled == [(name, False)]
  assert f"[1/1] {name}: 128 images at once, 26.00 GB" in capsys.readouterr().out
  assert run("--only", "h100 R50x1 training 480 1") == 0
  assert compiled == [(name, False)]
  assert "(known)" in capsys.readouterr().out
  run("--again", "--only", "h100 R50x1 training 480 1")
  assert compiled[1:] == [(name, False)]
  # Other code may make the same program; another compiler, or another way to count, does not.
  monkeypatch.setitem(MADE_OF, "code", "b")
  run("--only", "h100 R50x1 training 480 1")
  assert compiled[2:] == [(name, True)]
  assert results.load()[CASE]["code"] == "b"
  assert "before: 128 images at once, 26.00 GB, 1,600.0 MB an image" in capsys.readouterr().out
  for field in ("counter", "flags", "target"):
    monkeypatch.setitem(MADE_OF, field, "b")
    run("--only", "h100 R50x1 training 480 1")
  assert compiled[3:] == [(name, False)] * 3
  assert results.load()[CASE].items() >= MADE_OF.items()


def test_the_small_part(compiled):
  assert run("--small") == 0
  assert [name for name, _ in compiled] == [
    "1 x h100 R14x0.5 128 px training",
    "1 x v5e R14x0.5 128 px training",
  ]
  assert list(results.load()) == cases.small()


def test_unknown_words_are_named(capsys):
  with pytest.raises(errors.UserError, match="No program's name has the words 'h300'"):
    run("--only", "h300")
  assert run("--list", "--only", "v6e") == 0
  assert capsys.readouterr().out.splitlines() == [
    "1 x v6e R50x1 480 px training",
    "1 x v6e R152x4 480 px training",
  ]


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({}, True),
    ({"used": 51e9}, False),
    ({"larger_used": 50e9}, False),
    ({"larger_used": None}, True),
  ],
)
def test_a_program_fits_if_the_next_larger_one_does_not(changes, expected):
  assert results.confirmed(record(**changes)) == expected


def test_programs_that_fail_fail_the_command(compiled, monkeypatch, capsys):
  failed = [(case.name, False) for case in cases.table() if case.target == "v6e"]
  monkeypatch.setattr(table, "_compile", lambda *_: {"error": "does not compile: why"})
  assert run("--only", "v6e R50x1") == 1
  assert "px training: does not compile: why" in capsys.readouterr().out
  assert "## 1 x v6e" in results._PAGE.read_text()
  assert "| does not compile: why |" in results._PAGE.read_text()
  monkeypatch.setattr(table, "_compile", lambda *_: {"error": "killed", "passing": True})
  assert run("--only", "v6e R152x4") == 1
  assert len(results.load()) == 1  # it says nothing about the program
  monkeypatch.setattr(table, "_compile", lambda case, _: figures(case, used=51e9))
  assert run("--only", "v6e") == 1  # failures are tried again
  assert "51.00 GB of 50.0 GB: the wrong size" in capsys.readouterr().out
  assert len(failed) == len(results.load()) == 2


@pytest.mark.parametrize(
  ("end", "expected"),
  [
    ("kill -ABRT $$", {"error": "the compiler crashes (signal 6)"}),
    ("kill -KILL $$", {"error": "killed: the compiler needs more memory", "passing": True}),
    ("echo why >&2; exit 3", {"error": "failed with exit status 3", "passing": True}),
  ],
)
def test_how_a_compilation_ends(end, expected, monkeypatch, tmp_path, capsys):
  python = tmp_path / "python"
  python.write_text(f"#!/bin/sh\n{end}\n")
  python.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(python))
  assert table._compile(CASE, {}) == expected
  assert ("why" in capsys.readouterr().err) == ("why" in end)


def test_a_missing_compiler_is_an_error_of_one_sentence():
  with pytest.raises(errors.UserError, match=r"v5e needs jax\[tpu\] in an environment of its own"):
    results.made_of(cases.small()[1], "")


def test_a_row_of_the_page():
  text = results.page([record(), record(cases.Case("h100", 8, "R50x1", 480), whole=True)])
  assert "## 1 x H100\n\njax 1, jax-cuda13-plugin 1, code a\n" in text
  assert "## 8 x H100" in text
  # A forward pass takes 37.5 GFLOP (docs/memory_and_speed.md): times 3, times 128 images.
  assert (
    "| R50x1 | 480 | training | 128 | 0.20 GB | 25.00 GB | 26.0 of 50.0 GB: yes | 14.41 "
    "| 1,600.0 | 1,400.0 | 1.14 | 1,600 |"
  ) in text
  assert "| 128* |" in text
  missing = text.split("Not compiled yet:\n\n- ")[1].strip().split("\n- ")
  assert len(missing) == 66  # of 68
  assert "1 x v6e R50x1 480 px training" in missing
  in_float32 = results.page([record(cases.Case("h100", 1, "R50x1", 480, dtype="float32"))])
  assert "| training, float32 |" in in_float32


def test_the_page_shows_the_committed_records():
  records = list(results.load().values())
  assert results._PAGE.read_text(encoding="utf-8") == results.page(records)
  assert all(results.confirmed(record) for record in records if "error" not in record)


def test_every_source_of_the_code_exists():
  assert all(list(results._PACKAGE.glob(pattern)) for pattern in results._SOURCES)
