"""The page on reliability: it is what the records say, and says where there are none."""

import json
import re

import pytest

from experiments.reliability import page, versions

PACKAGES = {"jax": "0.10.2", "numpy": "2.4.6", "tqdm": "4.0"}
SOAK = {
  "kind": "resident",
  "date": "2026-01-02",
  "python": "3.11.7",
  "packages": PACKAGES,
  "num_devices": 2,
  "steps": 5000,
  "evaluations": 100,
  "checkpoints": 99,
  "memory": {
    "mb_per_1000_steps": 0.5,
    "low": 0.25,
    "high": 0.75,
    "of_tensorstore": 0.125,
    "first_mb": 1000.4,
    "last_mb": 1002,
  },
  "open_files": {"first": 8, "last": 8, "most": 17},
  "threads": {"first": 39, "last": 40, "most": 47},
  "compilations": {"first": 14, "last": 14, "most": 14, "by_name": {"step": 14}},
  "compiled_twice": 0,
  "step_ms": {"first": 10, "last": 11, "ratio": 1.1},
  "curve": [[10, 900.0], [100, 1000.4], [4990, 1002.0]],
}


def test_the_committed_page_is_what_would_be_written():
  assert page.PAGE.read_text() == page.text(page.SOAK.parent), "python -m experiments.reliability"
  assert page.CURVE.exists() == page.SOAK.exists()


def test_without_records_every_section_says_so(tmp_path):
  text = page.text(tmp_path)
  sections = re.findall(r"^## (.*)", text, re.M)
  assert text.count("Not measured yet.") == len(sections) - 1 == 6  # all but what isn't covered


def test_counts_of_a_kind_are_added(tmp_path):
  records = [
    {"part": "kills", "date": "2026-01-01", "seed": 1, "kills": 40, "phases": {"a": 1, "b": 2}},
    {"part": "signals", "date": "2026-01-02", "sent": 9, "phases": {"b": 9}, "wrong": []},
    {"part": "kills", "date": "2026-01-03T10:00", "kills": 1200, "phases": {"a": 4}, "most": 2.5},
  ]
  records[2] |= {"packages": PACKAGES, "python": "3.11.7"}
  (tmp_path / "kills.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
  text = page.text(tmp_path)
  assert "\n- kills: 1,240; most: 2.5\n- sent: 9; wrong: none\n" in text
  assert "| a |  | 5 |  |\n| b | 9 | 2 |  |" in text
  assert "Seen on 2026-01-01 to 2026-01-03, with Python 3.11.7, jax 0.10.2, numpy 2.4.6." in text


def test_a_record_that_was_made_again_replaces_the_earlier_one(tmp_path):
  old = {"kind": "a cut file", "date": "2026-01-01", "seed": 0, "lost": 7, "python": "3.11.2"}
  new = {**old, "date": "2026-01-02", "lost": 0, "python": "3.11.7"}
  other = {**new, "seed": 1, "lost": 2, "python": "3.12.0"}
  (tmp_path / "faults.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (old, new, other)))
  text = page.text(tmp_path)
  assert "|  | lost |" in text
  assert "| a cut file | 2 |" in text
  assert "Seen on 2026-01-02, with Python 3.11.7 and 3.12.0." in text


def test_findings_of_earlier_code_are_counted_apart(tmp_path):
  old = {"kind": "npz", "date": "2026-01-01", "inputs": 9, "accepted": 1, "refused": 5}
  old |= {"findings": 3, "distinct": ["A in a", "B in b"], "note": "before fixes; slow"}
  new = {**old, "inputs": 2000, "accepted": 1500, "refused": 500, "findings": 0, "distinct": []}
  del new["note"]
  records = [old, new, {**new, "date": "2026-01-03"}, {**old, "kind": "run_folders"}]
  (tmp_path / "fuzz.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
  text = page.text(tmp_path)
  assert "| npz | 4,000 | 3,000 | 1,000 | 0 | 2 |" in text
  assert "| run folders | not measured since |  |  |  | 2 |" in text


def test_long_runs(tmp_path):
  (tmp_path / "soak.jsonl").write_text(json.dumps(SOAK) + "\n")
  text = page.text(tmp_path)
  for row in (
    "| MB in use per 1,000 steps | 0.50 (0.25 to 0.75) |",
    "| of it, kept by tensorstore | 0.12 |",
    "| MB of the process, first and last | 1,000, 1,002 |",
    "| evaluations, checkpoints | 100, 99 |",
    "| threads | 39, then 40 |",
    "| ms a step, median of first and last tenth | 10.0, 11.0 |",
  ):
    assert row in text
  page.draw([SOAK], tmp_path / "curve.png")
  assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_versions(tmp_path):
  record = {"kind": "oldest", "date": "2026-01-02", "python": "3.11.2", "packages": PACKAGES}
  record |= {"tests": "all", "passed": 1300, "failed": 0, "skipped": 3}
  (tmp_path / "versions.jsonl").write_text(json.dumps(record) + "\n")
  row = "| oldest | 3.11.2 | jax 0.10.2, numpy 2.4.6 | all | 1,300 | 0 | 3 |"
  assert row in page.text(tmp_path)


@pytest.mark.parametrize(
  ("line", "passed", "failed", "skipped"),
  [
    ("22 failed, 1291 passed, 3 skipped, 9 deselected, 31 warnings in 438.85s", 1291, 22, 3),
    ("5 passed in 1.0s", 5, 0, 0),
    ("1 passed, 1 failed, 2 errors in 1.0s", 1, 3, 0),
  ],
)
def test_counts_of_pytest(line, passed, failed, skipped):
  assert versions.counts(line) == {"passed": passed, "failed": failed, "skipped": skipped}
