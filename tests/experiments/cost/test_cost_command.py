"""Tests of experiments.cost as a command."""

import running

from bit_jax.runtime import exits
from experiments.cost import __main__ as cost
from experiments.cost import throughput


def test_the_committed_tables_are_those_that_would_be_written(tmp_path, monkeypatch, capsys):
  committed = cost._TABLE.read_text(encoding="utf-8")
  copy = tmp_path / "cost.md"
  copy.write_text(committed.replace("R50x1", "R7x7"), encoding="utf-8")
  monkeypatch.setattr(cost, "_TABLE", copy)
  assert exits.run(cost.main, ["cost"]) == 0
  assert copy.read_text(encoding="utf-8") == committed, "python -m experiments.cost updates it"
  assert capsys.readouterr().out == committed


def test_the_documentation_has_what_would_be_printed():
  table = "\n".join(cost.summary(throughput.measurements()))
  page = (running.ROOT / "docs/memory_and_speed.md").read_text(encoding="utf-8")
  assert f"\n\n{table}\n\n" in page
