"""Tests of experiments.cost as a command."""

import run_folders
import running

from bit_jax.runtime import exits
from experiments.cost import __main__ as cost
from experiments.cost import checks, tables, throughput


def test_the_committed_tables_are_those_that_would_be_written(tmp_path, monkeypatch, capsys):
  committed = cost._TABLE.read_text(encoding="utf-8")
  copy = tmp_path / "cost.md"
  copy.write_text(committed.replace("R50x1", "R7x7"), encoding="utf-8")
  monkeypatch.setattr(cost, "_TABLE", copy)
  assert exits.run(cost.main, ["cost"]) == 0
  assert copy.read_text(encoding="utf-8") == committed, "python -m experiments.cost updates it"
  assert capsys.readouterr().out == committed


def test_checks_are_printed_and_what_holds_no_run_is_named(tmp_path, capsys):
  run_folders.write(tmp_path / "run", run_folders.reduced(), 0.5, sweep="mine")
  (tmp_path / "empty").mkdir()
  folders = [str(tmp_path / name) for name in ("empty", "run", "nowhere")]
  assert exits.run(cost.main, ["cost", "--check", *folders]) == 0
  header, _, row, _, total, *left_out = capsys.readouterr().out.splitlines()
  assert header.startswith("| run | machine | network, pixels, batch | steps |")
  assert row.startswith("| run | Linux x86_64, 2 cores | R14x0.5 48 px batch 64 | ")
  assert total.startswith("Total of 1 run: ")
  assert left_out == [
    f"Left out: {tmp_path / 'empty'}: holds no run",
    f"Left out: {tmp_path / 'nowhere'}: doesn't exist",
  ]


def test_folders_without_a_run(tmp_path, capsys):
  assert exits.run(cost.main, ["cost", "--check", str(tmp_path)]) == exits.USER_ERROR
  printed = capsys.readouterr()
  assert printed.out == f"Left out: {tmp_path}: holds no run\n"
  assert "--check found no finished run" in printed.err


def test_the_documentation_has_what_would_be_printed():
  known = throughput.measurements()
  table = "\n".join(tables.summary(known))
  page = (running.ROOT / "docs/memory_and_speed.md").read_text(encoding="utf-8")
  assert f"\n\n{table}\n\n" in page
  assert f"\n> {checks.total_time(checks.committed(known))}\n" in page
