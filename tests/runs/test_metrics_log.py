"""What a power cut leaves of metrics.jsonl is read as far as it can be."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bit_jax.runs import metrics_log

ROWS = [
  {"step": 2, "kind": "train", "loss": 0.5, "top1": 0.25, "learning_rate": 0.003},
  {"step": 2, "kind": "eval", "loss": 0.75, "top1": 0.125, "top5": 1},
  {"step": 4, "kind": "val", "loss": 0.5, "top1": 0.5},
]
LINES = [json.dumps(row).encode() for row in ROWS]


def read(folder, content):
  (folder / "metrics.jsonl").write_bytes(content)
  found = metrics_log.read(folder / "metrics.jsonl")
  for text, row in found.rows:
    assert text.endswith("\n")
    assert json.loads(text) == row
  return [row for _, row in found.rows], found.damaged


def test_whole_files(tmp_path):
  assert metrics_log.read(tmp_path / "none") == metrics_log.Read([], 0)
  assert read(tmp_path, b"") == ([], 0)
  whole = b"\n".join(LINES) + b"\n"
  assert read(tmp_path, whole) == (ROWS, 0)
  assert read(tmp_path, whole + b'{"step": 6, "ki') == (ROWS, 0)  # killed as it wrote


@pytest.mark.parametrize(
  "damage",
  [
    b"\0" * 512,
    b"",
    b" ",
    b'{"step": 4, "ki',
    b"\xff\xfe{",
    b"[]",
    b"null",
    b"3",
    b"{}",
    b'{"kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4, "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": "eval"}',
    b'{"step": "4", "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4.5, "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": true, "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": 3, "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1, "top1": null}',
    b'{"step": 4, "kind": "eval", "loss": NaN, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1e999, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1, "top1": 1' + b"0" * 400 + b"}",
    b'{"step": ' + b"1" * 5000 + b', "kind": "eval", "loss": 1, "top1": 1}',
    b"[" * 100_000,
  ],
)
def test_damaged_lines_are_counted_and_left_out(tmp_path, damage):
  content = LINES[0] + b"\n" + damage + b"\n" + LINES[1] + b"\n" + LINES[2] + b"\n"
  assert read(tmp_path, content) == (ROWS, 1)


@pytest.mark.parametrize("before", [b"\0" * 4096, b'{"step": 1, "kind": "tr', b"\xff", b"{}"])
def test_a_row_behind_damage_is_kept(tmp_path, before):
  content = LINES[0] + b"\n" + before + LINES[1] + b"\n" + LINES[2] + b"\n"
  assert read(tmp_path, content) == (ROWS, 1)


@settings(max_examples=200)
@given(st.binary())
def test_no_content_raises(tmp_path_factory, content):
  rows, damaged = read(tmp_path_factory.getbasetemp(), content)
  assert (rows, damaged) == ([], content.count(b"\n"))
