"""Tests of experiments.verification."""

import csv
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from bit_jax.data import vtab
from bit_jax.runtime import errors
from experiments import evaluation, released, verification

EXPECTED = released.Expected("top1", 97.64, 0.005, "a colab")
CHECK = released.Check("some", "some", "cifar10", evaluation.View(128), (EXPECTED,))
BROKEN = verification.Row("some", "cifar10", "128 square", remark="mend it")
MISSING = verification.dataclasses.replace(BROKEN, remark="get it", missing_file="vtab/some.npz")


def line_of(row):
  (line,) = verification.lines([row], [row])
  return line


def row(measured, **changes):
  (found,) = verification.rows(CHECK, {"loss": 0.1, "top1": measured / 100}, 10_000, "float32", [])
  return verification.dataclasses.replace(found, **changes)


@pytest.mark.parametrize(
  ("measured", "verdict"),
  [
    (97.64, "equal"),
    (97.54, "equal"),
    (97.745, "equal"),  # by the tolerance and the rounding
    (97.75, "different"),
    (97.53, "different"),
  ],
)
def test_verdicts(measured, verdict):
  found = row(measured)
  assert found.verdict == verdict
  assert found.difference == pytest.approx(measured - 97.64)


@hypothesis.given(st.floats(0, 100))
def test_a_verdict_is_by_the_size_of_the_difference(measured):
  off = abs(measured - 97.64)
  hypothesis.assume(abs(off - 0.105) > 1e-6)
  assert row(measured).verdict == ("equal" if off < 0.105 else "different")


def test_what_was_computed_in_half_precision_is_measured_but_not_judged():
  (found,) = verification.rows(CHECK, {"top1": 0.5}, 10_000, "bfloat16", [])
  assert (found.dtype, found.verdict) == ("bfloat16", "measured")
  assert found.remark.startswith("Computed in bfloat16")


def test_nothing_is_judged_that_can_not_be_compared():
  assert row(50.0, judged=False).verdict == "measured"
  (found,) = verification.rows(CHECK, {"top1": 0.5}, 12, "float32", ["The set is incomplete."])
  assert (found.verdict, found.remark) == ("measured", "The set is incomplete.")
  assert row(50.0, expected=None).verdict == "measured"


def test_a_row_for_each_published_value_that_was_measured():
  others = (EXPECTED, released.Expected("top5", 99.0, 0.05, "a colab"))
  check = verification.dataclasses.replace(CHECK, expected=others)
  found = verification.rows(check, {"top1": 0.9, "top5": 0.99}, 10, "float32", [])
  assert [(r.metric, r.measured) for r in found] == [("top1", 90.0), ("top5", 99.0)]
  assert len(verification.rows(check, {"top1": 0.9}, 10, "float32", [])) == 1  # of few classes


def test_lines_have_their_columns_below_the_titles():
  header = verification.header()
  line = line_of(row(97.5))
  for title, text in (
    ("checkpoint", "some"),
    ("data set", "cifar10"),
    ("test size", "128 square"),
    ("images", "10,000"),
    ("metric", "top1"),
    ("expected", "97.64 %"),
    ("measured", "97.50 %"),
    ("difference", "-0.14 !"),
    ("source", "a colab"),
  ):
    assert line[header.index(title) :].startswith(text)
  assert line_of(row(97.6)).split()[-3:] == ["-0.04", "a", "colab"]
  assert "-0.14 *" in line_of(row(97.5, judged=False))


def test_why_nothing_was_measured_stands_below_the_table_once():
  other = verification.dataclasses.replace(BROKEN, remark="another")
  found = [BROKEN, row(97.6), other, BROKEN]
  lines = [line for one in found for line in verification.lines([one], found)]
  assert [line.rpartition("not evaluated ")[2] for line in lines[::2]] == ["[1]", "[2]"]
  assert lines[3] == lines[0]
  assert list(verification.notes(found))[:2] == ["[1] mend it", "[2] another"]


def test_a_missing_file_is_one_line():
  (first,) = verification.lines([MISSING], [row(97.6), MISSING])
  assert first.split() == ["some", "missing:", "vtab/some.npz"]
  assert list(verification.lines([MISSING], [MISSING, MISSING])) == []


def test_what_is_missing_is_counted():
  names = ["R14x0.5-CIFAR100", "R50x1_224", "BiT-M-R50x1-CIFAR10"]
  assert verification.missing(names).startswith("2 of 3 checkpoints are missing; looked for in ")
  assert verification.missing(names[:1]) == ""


def test_notes_tell_what_the_table_needs():
  square = list(verification.notes([row(97.6)]))
  assert any(n.startswith("square:") for n in square)
  assert any("more than 0.1 points" in n for n in square)
  assert not any(n.startswith("A of B") or "isn't judged" in n for n in square)
  other = list(verification.notes([row(97.6, test_size="4 of 5, bicubic", judged=False)]))
  assert any(n.startswith("A of B") for n in other)
  assert any("isn't judged" in n for n in other)
  assert "Odd." in list(verification.notes([row(97.6, remark="Odd.")]))
  assert list(verification.notes([MISSING])) == []


def scored(architecture, run, tasks, value, rule="paper"):
  return [
    verification.Row(
      f"BiT-M-{architecture}-run{run}-{task}",
      f"vtab/{task}",
      f"{released.vtab_sizes(task)[rule]} square",
      measured=value,
    )
    for task in tasks
  ]


def test_means_say_over_how_many_tasks():
  found = scored("R101x3", 1, vtab.TASKS[:3], 80.0) + scored("R101x3", 1, vtab.TASKS[3:4], 60.0)
  lines = list(verification.vtab_lines(found))
  assert lines[0] == "BiT-M-R101x3 run 1, sizes of paper: 75.00 % over 4 of 19 tasks"
  assert not any("expected" in line for line in lines)


def test_a_whole_run_is_compared_with_the_published_score():
  found = scored("R101x3", 0, vtab.TASKS, 72.0)
  paper, *others = verification.vtab_lines(found)
  assert paper.startswith("BiT-M-R101x3 run 0, sizes of paper: 72.00 % over 19 of 19 tasks; ")
  assert "expected 72.65 % (big_transfer README VTAB-1k table" in paper
  assert paper.endswith("-0.65")
  assert [line.endswith("over 5 of 19 tasks") for line in others] == [True]  # 128 is both's


def test_three_whole_runs_have_a_mean():
  found = [r for run in range(3) for r in scored("R50x1", run, vtab.TASKS, 70.0 + run)]
  assert "BiT-M-R50x1 mean of 3 runs, sizes of paper: 71.00 %" in verification.vtab_lines(found)


def test_nothing_of_vtab_nothing_of_means():
  assert list(verification.vtab_lines([row(97.6), MISSING])) == []


def test_what_ends_in_an_error():
  verification.require([MISSING, row(97.6)])
  verification.require([row(50.0, judged=False)])
  with pytest.raises(errors.UserError, match="Nothing could be evaluated: above"):
    verification.require([MISSING, MISSING])
  with pytest.raises(errors.UserError, match=r"1 figures are off by more than 0\.1 .*: some"):
    verification.require([MISSING, row(97.6), row(90.0)])


def test_rows_are_written(tmp_path):
  found = [row(97.6), MISSING]
  verification.write(tmp_path / "rows.json", found)
  verification.write(tmp_path / "rows.csv", found)
  written = json.loads((tmp_path / "rows.json").read_text())
  assert [r["verdict"] for r in written] == ["equal", "missing"]
  assert written[0]["difference"] == pytest.approx(-0.04)
  with (tmp_path / "rows.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  assert [r["checkpoint"] for r in table] == ["some", "some"]
  assert float(table[0]["measured"]) == pytest.approx(97.6)
  assert table[1]["measured"] == ""


def test_files_of_other_kinds_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match=r"must end in \.json or \.csv"):
    verification.require_suffix(tmp_path / "rows.txt")
  with pytest.raises(errors.UserError, match="there is no folder"):
    verification.require_suffix(tmp_path / "no" / "rows.csv")
