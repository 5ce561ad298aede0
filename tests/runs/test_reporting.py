"""What a run tells: the rows of metrics.jsonl, TensorBoard's events, and the overview."""

import json

import jax
import numpy as np
import pytest
import running

from bit_jax.models import architectures
from bit_jax.runs import reporting
from bit_jax.runtime import clock, processes


@pytest.fixture(params=[True, False], ids=["clu", "without TensorFlow"])
def with_clu(request, monkeypatch):
  """Both ways of reporting; without TensorFlow its import fails."""
  if not request.param:
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
  return request.param


def report(folder, first_step=0, quiet=False, total_steps=4, step_clock=None, **more):
  return reporting.Reporter(
    folder=folder,
    first_step=first_step,
    total_steps=total_steps,
    batch_size=8,
    step_clock=step_clock or clock.StepClock(),
    quiet=quiet,
    **more,
  )


def test_evaluations_on_record_are_those_of_the_first_process(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)  # it sees no file yet
  monkeypatch.setattr(processes, "gather", lambda value: [[[2, 0.5], [4, 0.25]], value])
  with report(tmp_path, first_step=4, total_steps=6, quiet=True) as reporter:
    assert reporter.evaluations == {2: 0.5, 4: 0.25}


def rows(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows(tmp_path, capsys, with_clu):
  step_clock = clock.StepClock()
  with report(tmp_path, step_clock=step_clock) as reporter:
    for step in (1, 2):
      with reporter.waiting_for_input():
        pass
      step_clock.step_done()
      reporter.step(step)
    reporter.train_metrics(2, {"loss": 0.5, "top1": 0.25, "learning_rate": 0.1})
    reporter.eval_metrics(2, {"loss": 0.75, "top1": 0.125, "top5": 0.5}, 1234)
  train, evaluation = rows(tmp_path)
  assert train == {**train, "step": 2, "kind": "train", "loss": 0.5, "top1": 0.25}
  assert train["learning_rate"] == 0.1
  assert train["images_per_second"] > 0
  assert 0 <= train["input_wait_share"] <= 1
  assert evaluation == {"step": 2, "kind": "eval", "loss": 0.75, "top1": 0.125, "top5": 0.5}
  out = capsys.readouterr().out
  assert "step 2/4  loss 0.5000  top-1  25.0%" in out
  assert "step 2: evaluated 1,234 images: loss 0.7500  top-1 12.50%  top-5 50.00%" in out
  assert ("TensorBoard logging is disabled" in out) != with_clu
  assert bool(list(tmp_path.glob("events.out.tfevents.*"))) == with_clu


@pytest.mark.slow
def test_tensorboard_reads_the_values_back(tmp_path):
  with report(tmp_path) as reporter:
    reporter.step(2)
    reporter.train_metrics(2, {"loss": 0.5, "top1": 0.25})
    reporter.eval_metrics(4, {"loss": 0.75, "top1": 0.125}, 10)
  assert running.scalars(tmp_path, "train/loss") == [(2, 0.5)]
  assert running.scalars(tmp_path, "eval/top1") == [(4, 0.125)]


@pytest.mark.usefixtures("with_clu")
def test_speed_counts_images_and_leaves_pauses_out(tmp_path, monkeypatch):
  now = [100.0]
  with monkeypatch.context() as patch:
    patch.setattr(reporting.time, "monotonic", lambda: now[0])
    step_clock = clock.StepClock(seconds=7.0, steps=1)
    reporter = report(tmp_path, first_step=2, step_clock=step_clock)
    now[0] += 30  # the first step, which is compiled
    step_clock.step_done()
    with reporter.waiting_for_input():
      now[0] += 1
    now[0] += 3
    step_clock.step_done()
    with step_clock.paused():
      now[0] += 50
    reporter.train_metrics(4, {"loss": 0.0, "top1": 0.0})
  with reporter:
    pass
  (row,) = rows(tmp_path)
  assert row["images_per_second"] == 8 / 4
  assert row["input_wait_share"] == 0.25


@pytest.mark.usefixtures("with_clu")
def test_a_resumed_run_drops_the_rows_it_will_write_again(tmp_path):
  old = [(1, "train"), (2, "train"), (2, "eval"), (3, "train"), (4, "train"), (4, "eval")]
  text = "".join(
    json.dumps({"step": s, "kind": k, "loss": 1, "top1": s / 4}) + "\n" for s, k in old
  )

  def kept(first_step):
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 4, "ki')  # killed as it wrote
    with report(tmp_path, first_step, quiet=True) as other, report(tmp_path, first_step) as first:
      assert other.evaluations == first.evaluations == ({2: 0.5} if first_step >= 2 else {})
    with report(tmp_path, first_step, quiet=True) as late:
      assert late.evaluations == first.evaluations
    return [(r["step"], r["kind"]) for r in rows(tmp_path)]

  assert kept(0) == []
  assert kept(2) == old[:3]
  assert kept(3) == old[:4]
  assert kept(4) == old[:5]  # the evaluation that ends a run is made again


def test_a_run_that_chooses_on_val_keeps_these_evaluations_and_makes_that_of_test_again(
  tmp_path, capsys
):
  kinds = {"chooses_on": reporting.VAL}
  with report(tmp_path, total_steps=6, **kinds) as reporter:
    for step, top1 in ((2, 0.25), (4, 0.5), (6, 0.125)):
      reporter.eval_metrics(step, {"loss": 1.0, "top1": top1}, 10, reporting.VAL)
    reporter.eval_metrics(4, {"loss": 2.0, "top1": 0.75}, 1234)
    assert reporter.evaluations == {2: 0.25, 4: 0.5, 6: 0.125}
  out = capsys.readouterr().out
  assert "step 4: evaluated 10 validation images: loss 1.0000  top-1 50.00%" in out
  assert "step 4: evaluated 1,234 test images: loss 2.0000  top-1 75.00%" in out
  assert [(r["step"], r["kind"]) for r in rows(tmp_path)][-2:] == [(6, "val"), (4, "eval")]
  with report(tmp_path, 6, total_steps=6, quiet=True, **kinds) as resumed:
    assert resumed.evaluations == {2: 0.25, 4: 0.5}
  with report(tmp_path, 6, total_steps=6, **kinds) as resumed:
    assert resumed.evaluations == {2: 0.25, 4: 0.5}
  assert [(r["step"], r["kind"]) for r in rows(tmp_path)] == [(2, "val"), (4, "val")]


def test_a_resumed_run_tells_of_damaged_rows_and_keeps_the_others(tmp_path, capsys):
  old = [{"step": s, "kind": "eval", "loss": 1.0, "top1": s / 8} for s in (1, 2, 3)]
  first, second, third = (json.dumps(row) + "\n" for row in old)
  (tmp_path / "metrics.jsonl").write_text(first + "\0\0\n\n" + second[:20] + "\n" + third)
  with report(tmp_path, first_step=3) as reporter:
    assert reporter.evaluations == {1: 0.125, 3: 0.375}
    reporter.sync()
  assert rows(tmp_path) == [old[0], old[2]]
  (line,) = capsys.readouterr().out.splitlines()
  assert line.startswith("warning: metrics.jsonl has 3 damaged lines")
  with report(tmp_path, first_step=3):
    pass
  assert capsys.readouterr().out == ""


def test_other_processes_write_and_say_nothing(tmp_path, capsys):
  with report(tmp_path, quiet=True) as reporter:
    with reporter.waiting_for_input():
      pass
    reporter.step(1)
    reporter.train_metrics(1, {"loss": 0.0, "top1": 0.0})
    reporter.eval_metrics(1, {"loss": 0.0, "top1": 0.25}, 10)
    assert reporter.evaluations == {1: 0.25}  # as all must agree on when to end
  assert list(tmp_path.iterdir()) == []
  assert capsys.readouterr().out == ""


def test_parameter_overview(tmp_path):
  shapes = architectures.parameter_shapes(architectures.find("R14x0.5"), 10)
  params = {}
  for name, shape in shapes.items():
    *path, last = name.split("/")
    node = params
    for part in path:
      node = node.setdefault(part, {})
    node[last] = np.zeros(shape, np.float32)
  text = reporting.parameter_overview(params, tmp_path / "p.txt")
  total = sum(int(np.prod(s)) for s in shapes.values())
  assert text == f"  network         {total:,} parameters in 45 arrays, listed in p.txt"
  written = (tmp_path / "p.txt").read_text()
  assert all(name in written for name in shapes)
  assert f"{total:,}" in written


def test_a_long_silence_is_broken_where_no_terminal_shows_a_bar(tmp_path, monkeypatch, capsys):
  now = [0.0]
  monkeypatch.setattr(reporting.time, "monotonic", lambda: now[0])
  step_clock = clock.StepClock(seconds=500.0, steps=5)
  with report(tmp_path, first_step=1, total_steps=1000, step_clock=step_clock) as reporter:
    step_clock.step_done()
    count = reporter.evaluating(30_000)
    capsys.readouterr()
    for step in range(2, 12):
      now[0] += 25
      step_clock.step_done()
      reporter.step(step)
    out = capsys.readouterr().out
    assert "step    4/1000  6h 55m left\nstep    7/1000  6h 53m left\nstep   10/1000" in out
    for _ in range(7):
      now[0] += 20
      count(1000)
    assert capsys.readouterr().out == "".join(
      f"evaluated {n},000 of 30,000 images\n" for n in (2, 5)
    )
  assert rows(tmp_path) == []
