"""Tests of experiments.benchmarks.results."""

import dataclasses
import json
import pathlib

import pytest

from bit_jax.runtime import exits
from experiments.benchmarks import (
  load,
  machine,
  results,
  roofline,
  workers,
)


def test_a_machine_that_slows_down_slows_down_both():
  ours, theirs = workers.Figures((10, 8, 2), 0), workers.Figures((5, 4, 4), 0)
  row = results.rates("", "", ours, "peer", theirs, {"MFU": 0.5})
  assert (row.ours, row.theirs, row.ratio) == (8, 4, 2)
  assert row.more == {"rounds": "0.50 to 2.00", "MFU": 0.5}
  assert dataclasses.replace(row, paired=1.5).ratio == 1.5
  assert dataclasses.replace(row, paired=None, theirs=2).ratio == 4


def test_rows_are_printed_and_recorded(tmp_path, capsys):
  path = tmp_path / "results.jsonl"
  row = results.Row(
    "R50x1", "training", "images/s", 18.04, "PyTorch", 16.4, more={"MFU": 0.4567, "form": "eager"}
  )
  missing = results.Row("R50x1", "training", "images/s", 1234.5, "Flax", None, note="no room")
  for _ in range(2):
    results.record("train_step", [row, missing], path, {"torch": "2"})
  header, on, _, first, second = capsys.readouterr().out.splitlines()[:5]
  assert header.startswith("train_step, 20")
  assert machine.describe() in on
  assert "torch 2" in on
  assert " ".join(first.split()) == (
    "R50x1 training 18 images/s PyTorch 16.4 images/s 1.10 MFU 0.457; form eager"
  )
  assert " ".join(second.split()) == "R50x1 training 1,234 images/s Flax none no room"
  records = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(records) == 4
  assert records[0]["ratio"] == pytest.approx(1.1)
  assert records[1]["ratio"] is None
  assert records[0]["versions"]["torch"] == "2"
  assert set(records[0]["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax"}


def test_a_report_holds_the_newest_of_each(tmp_path):
  path = tmp_path / "results.jsonl"
  for ours in (1.0, 2.0):
    rows = [results.Row("R50x1", "time", "s", ours, "numpy.load", 4.0)]
    results.record("load", [*rows, results.Row("R50x1", "peak memory", "GB", ours / 10)], path)
  lines = path.read_text().splitlines()
  text = results.render(results.newest(lines))
  assert text.count("### load") == 1
  assert [line for line in text.splitlines() if line.startswith("| R50x1")] == [
    "| R50x1 | time | 2 s | numpy.load | 4 s | 0.50 |  |",
    "| R50x1 | peak memory | 0.2 GB |  | none |  |  |",
  ]


def test_the_readme_has_the_roofline_and_the_recorded_figures():
  text = (pathlib.Path(roofline.__file__).parent / "README.md").read_text()
  assert roofline.table(roofline.ACCELERATORS["H200"]) in text
  recorded = results.PATH.read_text().splitlines()
  assert results.render(results.newest(recorded)) in text


def test_memory_of_a_process():
  block = b"x" * 50_000_000
  assert machine.held_memory() > len(block)
  assert machine.peak_memory() >= machine.held_memory()


@pytest.mark.parametrize(
  ("main", "argument", "message"),
  [
    (results.report, "nowhere.jsonl", "nowhere.jsonl"),
    (load.main, "--models=R99", "'R99'"),
  ],
)
def test_mistakes_end_in_a_sentence(main, argument, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert exits.run(main, ["", argument]) == exits.USER_ERROR
  assert message in capsys.readouterr().err
