"""Tests of experiments.ledger."""

import datetime
import json
import os

import pytest

from experiments import ledger


def record(folder):
  return json.loads((folder / "sweep.json").read_text())


def test_an_attempt_is_on_record_from_its_beginning(tmp_path):
  attempt = ledger.Attempt(tmp_path, "mine", {"start": "in words"})
  assert ledger.state(tmp_path) == "begun"
  assert ledger.outcome(tmp_path) == "running"
  written = record(tmp_path)
  assert (written["sweep"], written["labels"]) == ("mine", {"start": "in words"})
  attempt.end("interrupted")
  assert ledger.outcome(tmp_path) == "interrupted"
  (only,) = record(tmp_path)["attempts"]
  assert only["outcome"] == "interrupted"
  assert only["seconds"] >= 0


def test_attempts_add_up_and_a_killed_one_took_until_it_last_wrote(tmp_path):
  killed = {"started": "2026-01-01T00:00:00+00:00", "seconds": None, "outcome": "running"}
  earlier = {"started": "2025-01-01T00:00:00+00:00", "seconds": 7.5, "outcome": "interrupted"}
  (tmp_path / "sweep.json").write_text(
    json.dumps({"sweep": "mine", "labels": {}, "attempts": [earlier, killed]})
  )
  (tmp_path / "log.txt").write_text("")
  os.utime(tmp_path / "log.txt", (1767225600 + 90, 1767225600 + 90))  # 90 s after its start
  ledger.Attempt(tmp_path, "mine", {}).end("finished")
  first, second, third = record(tmp_path)["attempts"]
  assert first == earlier
  assert (second["seconds"], second["outcome"]) == (90.0, "killed")
  assert ledger.seconds(tmp_path) == pytest.approx(97.5 + third["seconds"])


def test_a_failure_is_noted_with_its_traceback_and_goes_when_the_run_is_finished(tmp_path):
  folder = tmp_path / "run"
  try:
    raise ValueError("no")
  except ValueError as e:
    ledger.note_failure(folder, "It said no.", e)
  assert ledger.state(folder) == "failed"
  assert ledger.failure(folder) == "It said no."
  noted = json.loads((folder / "error.json").read_text())
  assert noted["kind"] == "ValueError"
  assert "test_ledger.py" in noted["traceback"]
  ledger.Attempt(folder, "mine", {}).end("finished")
  assert ledger.failure(folder) is None


def test_a_run_that_is_tried_again_has_no_error_any_more(tmp_path):
  ledger.note_failure(tmp_path, "It said no.")
  attempt = ledger.Attempt(tmp_path, "mine", {})
  assert (ledger.failure(tmp_path), ledger.state(tmp_path)) == (None, "begun")
  attempt.end("interrupted")
  assert ledger.state(tmp_path) == "begun"


def test_a_folder_tells_how_far_its_run_is(tmp_path):
  assert ledger.state(tmp_path / "none") == "open"
  assert ledger.last_step(tmp_path) == 0
  assert ledger.seconds(tmp_path) is None
  (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 8}\n{"st')
  assert ledger.last_step(tmp_path) == 8
  ledger.note_failure(tmp_path, "First it failed.")
  (tmp_path / "result.json").write_text('{"top1": 0.5}')
  assert ledger.state(tmp_path) == "finished"


@pytest.mark.parametrize("damage", ["", "{", "{}", "[]", '{"loss": 1}', '{"top1": "0.5"}'])
def test_a_file_that_holds_no_result_finishes_no_run(tmp_path, damage):
  (tmp_path / "result.json").write_text(damage)
  assert (ledger.result(tmp_path), ledger.state(tmp_path)) == (None, "open")


def test_of_long_metrics_the_end_is_read(tmp_path, monkeypatch):
  lines = "".join(json.dumps({"step": step}) + "\n" for step in range(1, 5000))
  (tmp_path / "metrics.jsonl").write_text(lines + '{"st')
  assert ledger.last_step(tmp_path) == 4999
  monkeypatch.setattr(ledger, "_TAIL", 20)  # which leaves one line whole, and a part of another
  assert ledger.last_step(tmp_path) == 4999


@pytest.mark.parametrize("damage", ["", "\0\0\0", '{"step": 9, "kin', "[]"])
def test_damaged_lines_hide_no_step(tmp_path, damage):
  (tmp_path / "metrics.jsonl").write_text(f'{{"step": 4}}\n{damage}\n')
  assert ledger.last_step(tmp_path) == 4


@pytest.mark.parametrize("line", ["{", "[]", '{"step": "x"}', '{"step": null}'])
def test_a_damaged_line_of_metrics_gives_no_step(line, tmp_path):
  (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
  assert ledger.last_step(tmp_path) == 0


FINE = {"started": "2026-01-01T00:00:00+00:00", "seconds": 3, "outcome": "running"}
DAMAGED = [
  *({**FINE, "started": None}, {**FINE, "started": "today"}, {**FINE, "seconds": "3"}),
  *({**FINE, "seconds": -1}, {**FINE, "seconds": 1e300}, {**FINE, "outcome": None}, {"a": 1}, 1),
]


@pytest.mark.parametrize(
  "damage",
  [
    *("", "{", "[]", '{"attempts": 3}'),
    *(json.dumps({"attempts": [FINE, attempt]}) for attempt in DAMAGED),
    *(json.dumps({"attempts": [attempt, FINE]}) for attempt in DAMAGED),
  ],
)
def test_damaged_records_are_as_if_they_were_not_there(tmp_path, damage):
  for name in ("sweep.json", "metrics.jsonl", "result.json", "error.json"):
    (tmp_path / name).write_text(f"{damage}\n")
  assert ledger.outcome(tmp_path) is None
  assert ledger.seconds(tmp_path) is None
  assert ledger.last_step(tmp_path) == 0
  assert ledger.result(tmp_path) is None
  assert ledger.failure(tmp_path) == "It failed, and error.json is damaged."
  ledger.Attempt(tmp_path, "mine", {}).end("interrupted")
  assert [a["outcome"] for a in record(tmp_path)["attempts"]] == ["interrupted"]


def one(seconds=1.5, started="2020-01-01T00:00:00+00:00", outcome="finished"):
  return {"started": started, "seconds": seconds, "outcome": outcome}


@pytest.mark.parametrize(
  ("noted", "seconds"),
  [
    ([one(1.5), one(2)], 3.5),
    ([one(1.5), one(None)], None),
    ([one(1.5), one("2")], None),
    ([one(1.5), one(True)], None),
    ([one(1.5), 2], None),
    ([one(1.5), {"seconds": 2}], None),
    ([one(1e308), one(1e308)], None),
    ([one(10**400)], None),
    ([one(1.5), one(-2.5)], None),
    ([one(float("nan"))], None),
    ([one(0)], None),
    ([one(1.5), one(outcome=None)], None),
    ([], None),
    ("x", None),
    (None, None),
  ],
)
def test_seconds_of_attempts_that_others_noted(noted, seconds):
  assert ledger.total_seconds(noted) == seconds


@pytest.mark.parametrize(
  ("last", "began"),
  [
    ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00+00:00"),
    ("2026-11-22T09:00:00", "2026-11-22T09:00:00+00:00"),
    ("yesterday", None),
    ("", None),
    (5, None),
  ],
)
def test_the_last_attempt_began(last, began):
  expected = None if began is None else datetime.datetime.fromisoformat(began)
  assert ledger.last_began([one(), one(started=last)]) == expected


@pytest.mark.parametrize("noted", [[], [1], [{}], {"started": "2026-11-22"}, None])
def test_no_attempt_noted(noted):
  assert ledger.last_began(noted) is None
