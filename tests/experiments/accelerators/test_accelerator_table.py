"""The table of compiled programs: which there are, what is compiled again, and the page."""

import collections

import pytest

from bit_jax.runtime import errors
from experiments.accelerators import __main__ as table
from experiments.accelerators import cases, results

CASE = cases.Case("h100", 1, "R50x1", 480)


def record(case=CASE, **changes):
  return {
    "case": {**vars(case)},
    "versions": {"jax": "1", "jax-cuda13-plugin": "1"},
    "code": "a",
    "images": 128,
    "whole": False,
    "remat": False,
    "budget": 50e9,
    "state": 10**9,
    "larger": 256,
    "larger_bytes": 60e9,
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
  monkeypatch.setattr(results, "versions", lambda _: {"jax": "1"})
  monkeypatch.setattr(results, "code", lambda: "a")

  def fake(case, known, made_of):
    notes.append((case.name, bool(known)))
    return record(case, **made_of)

  monkeypatch.setattr(table, "_compile", fake)
  return notes


def run(*arguments):
  return table.main(["", *arguments])


def test_the_table_has_the_programs_that_matter():
  every = cases.table()
  assert len(set(every)) == len(every) == 66
  assert len({case.name for case in every}) == 66
  one = collections.Counter(case.model for case in every if case.target in ("h100", "v5e"))
  assert set(one) == {"R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4"}
  assert {case.target for case in every if case.model == "R152x4"} >= {"a100", "v4", "v5p", "v6e"}
  assert {case.devices for case in every if case.target == "v5e"} == {1, 4, 16}
  assert sum(case.dtype == "float32" for case in every) == 2
  assert [case.target for case in cases.small()] == ["h100", "v5e"]


def test_what_is_known_is_not_compiled_again(compiled, monkeypatch, capsys):
  name = "1 x h100 R50x1 480 px training"
  assert run("--only", "h100 R50x1 training 480 1") == 0
  assert compiled == [(name, False)]
  assert f"[1/1] {name}: 128 images at once, 26.0 GB" in capsys.readouterr().out
  assert run("--only", "h100 R50x1 training 480 1") == 0
  assert compiled == [(name, False)]
  assert "(known)" in capsys.readouterr().out
  run("--again", "--only", "h100 R50x1 training 480 1")
  assert compiled[1:] == [(name, False)]
  # Other code may make the same program; another compiler makes another one.
  monkeypatch.setattr(results, "code", lambda: "b")
  run("--only", "h100 R50x1 training 480 1")
  assert compiled[2:] == [(name, True)]
  monkeypatch.setattr(results, "versions", lambda _: {"jax": "2"})
  run("--only", "h100 R50x1 training 480 1")
  assert compiled[3:] == [(name, False)]
  assert results.load()[CASE]["code"] == "b"


def test_the_small_part_leaves_the_table_alone(compiled):
  assert run("--small") == 0
  assert [name for name, _ in compiled] == [
    "1 x h100 R14x0.5 128 px training",
    "1 x v5e R14x0.5 128 px training",
  ]
  assert not results.PATH.exists()


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
    ({"bytes": 51e9}, False),
    ({"bytes": 50.5e9, "whole": True}, True),  # its arguments include the state
    ({"larger_bytes": 50e9}, False),
    ({"larger_bytes": None}, True),
  ],
)
def test_a_program_fits_if_the_next_larger_one_does_not(changes, expected):
  assert results.fits(record(**changes)) == expected


def test_programs_that_fail_fail_the_command(compiled, monkeypatch, capsys):
  def fails(case, *_):
    return {"case": {**vars(case)}, "kind": "H100", "error": "does not compile: why"}

  monkeypatch.setattr(table, "_compile", lambda case, _, made_of: fails(case) | made_of)
  assert run("--only", "a100 R50x1") == 1
  assert "px training: does not compile: why" in capsys.readouterr().out
  assert "| does not compile: why |" in results._PAGE.read_text()
  monkeypatch.setattr(table, "_compile", lambda case, *_: record(case, bytes=51e9))
  assert run("--only", "a100 R152x4") == 1
  assert "does not fit" in capsys.readouterr().out


def test_a_row_of_the_page():
  text = results.page([record(), record(cases.Case("h100", 8, "R50x1", 480), whole=True)])
  assert "## 1 x H100\n\njax 1, jax-cuda13-plugin 1, code a\n" in text
  assert "## 8 x H100" in text
  # A forward pass takes 37.5 GFLOP (docs/memory_and_speed.md): times 3, times 128 images.
  assert (
    "| R50x1 | 480 | training | 128 | 0.20 GB | 25.00 GB | yes | 14.41 | 1,600.0 | 1,400.0 | 1.14 "
    "| 1,600 |"
  ) in text
  assert "| 128* |" in text
  in_float32 = results.page([record(cases.Case("h100", 1, "R50x1", 480, dtype="float32"))])
  assert "| training, float32 |" in in_float32


def test_the_page_shows_the_committed_records():
  records = list(results.load().values())
  assert results._PAGE.read_text(encoding="utf-8") == results.page(records)
  assert all(results.fits(record) for record in records if "error" not in record)


def test_every_source_of_the_code_exists():
  assert all(list(results._PACKAGE.glob(pattern)) for pattern in results._SOURCES)
