"""Tests of experiments.sweeping.slurm and slurm_job: programs stand for Slurm's.

Scripts on PATH are called in their place. In most tests jobs do nothing, and a story tells what
Slurm and the jobs would have done between two looks; in the last one, jobs run as on a node.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import resolving
import running
import submitit  # here, since it sets up logging: within a test, that closes what pytest captures

from bit_jax.runtime import errors, exits, files, stopping
from bit_jax.training import fine_tuning
from experiments import ledger, sweep
from experiments.sweeping import (
  grid,
  queueing,
  slurm,
  slurm_job,
  worker,
)

STATE = "SLURM_STUB"
# $SLURM_STUB/jobs/NUMBER holds `state|reason|name` of a job. Where there is
# $SLURM_STUB/refuse, sbatch says what is in it, and takes none; where there is $SLURM_STUB/nodes,
# jobs run.
PROGRAMS = {
  "sbatch": """
    if [ -f $SLURM_STUB/refuse ]; then cat $SLURM_STUB/refuse >&2; exit 1; fi
    number=$(($(ls $SLURM_STUB/jobs | wc -l) + 1))
    name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
    echo "RUNNING|None|$name" > $SLURM_STUB/jobs/$number
    cp "$1" $SLURM_STUB/script-$number
    if [ -d $SLURM_STUB/nodes ]; then
      export SLURM_JOB_ID=$number SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_NODEID=0
      export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here
      (setsid bash $SLURM_STUB/script-$number < /dev/null > $SLURM_STUB/nodes/$number.out 2>&1
       sed -i 's/^RUNNING/COMPLETED/' $SLURM_STUB/jobs/$number) > /dev/null 2>&1 &
    fi
    echo "Submitted batch job $number"
  """,
  "srun": """
    while [[ $1 == --* ]]; do
      case $1 in
        --output) output=${2//%j/$SLURM_JOB_ID}; shift 2 ;;
        --error) error=${2//%j/$SLURM_JOB_ID}; shift 2 ;;
        *) shift ;;
      esac
    done
    echo $$ > $SLURM_STUB/nodes/$SLURM_JOB_ID.pid
    exec "$@" > "${output//%t/0}" 2> "${error//%t/0}"
  """,
  "squeue": """
    if [ -f $SLURM_STUB/silent ]; then echo "no controller" >&2; exit 1; fi
    cd $SLURM_STUB/jobs
    for number in *; do [ ! -f $number ] || echo "$number|$(cat $number)"; done | tr '|' '\037'
  """,
}


class Stub:
  """Slurm, as far as a sweep sees it."""

  def __init__(self, folder):
    self.folder, self.jobs = folder, folder / "jobs"
    self.jobs.mkdir(parents=True)

  def end(self, number, state):
    """Has a job end in this state; None: it is forgotten at once."""
    path = self.jobs / str(number)
    path.write_text("" if state is None else self._line(number, state, "None"))

  def set(self, number, state, reason):
    (self.jobs / str(number)).write_text(self._line(number, state, reason))

  def _line(self, number, state, reason):
    _, _, rest = (self.jobs / str(number)).read_text().split("|", 2)
    return f"{state}|{reason}|{rest}"

  def kill(self):
    """Ends the jobs that run, which outlive a test that fails."""
    for path in (self.folder / "nodes").glob("*.pid"):
      if (self.jobs / path.stem).read_text().startswith("RUNNING"):
        with contextlib.suppress(ProcessLookupError):
          os.kill(int(path.read_text()), signal.SIGKILL)

  def submitted(self):
    """Returns the names of the jobs' runs, in order."""
    numbers = sorted(int(p.name) for p in self.jobs.iterdir())
    scripts = [(self.folder / f"script-{n}").read_text() for n in numbers]
    return [s.partition("--job-name=")[2].partition("\n")[0] for s in scripts]


@pytest.fixture
def stub(tmp_path, monkeypatch):
  folder = tmp_path / "bin"
  folder.mkdir()
  for name, text in PROGRAMS.items():
    path = folder / name
    path.write_text("#!/bin/bash\n" + textwrap.dedent(text))
    path.chmod(0o755)
  monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
  monkeypatch.setenv(STATE, str(tmp_path / "stub"))
  monkeypatch.delenv("SLURM_JOB_ID", raising=False)
  slurm_stub = Stub(tmp_path / "stub")
  yield slurm_stub
  slurm_stub.kill()


def planned(name, after=None):
  config, spec = resolving.resolve(running.config(total_steps=100))
  return grid.Planned(name, config, spec, {}, after, None)


def job(out):
  return worker.Job(str(out / "a"), planned("a").config.to_dict(), "mine", {})


class Sweep:
  """A sweep whose jobs do what a story tells."""

  def __init__(self, out, monkeypatch):
    self.out, self.stop, self._monkeypatch = out, stopping.StopRequest(), monkeypatch
    self.queue = self.watcher = None

  def watch(self, *runs, story, most=None, options=""):
    """Watches the runs; each `yield` of the story is a look at the queue."""
    self.queue = queueing.Queue(runs, self.out, "mine")
    told = story()

    def wait(self):
      if next(told, "over") == "over":
        pytest.fail("The story is over, and the sweep goes on.")

    self._monkeypatch.setattr(slurm.Slurm, "wait", wait)
    self._monkeypatch.setattr(slurm, "_GONE", 2)
    cluster = slurm.connect(slurm.options(options), self.out / "slurm")
    self.watcher = slurm.Slurm(self.queue, self.stop, most, cluster)
    self.watcher.run()
    assert next(told, "over") == "over", "The sweep is over, and the story goes on."

  @contextlib.contextmanager
  def attempt(self, name, number):
    """What the job of this number does in the folder of its run."""
    folder = self.out / name
    folder.mkdir(parents=True, exist_ok=True)
    with self._monkeypatch.context() as m:
      m.setenv("SLURM_JOB_ID", str(number))
      yield folder, ledger.Attempt(folder, "mine", {})

  def finish(self, name, number):
    with self.attempt(name, number) as (folder, attempt):
      (folder / "result.json").write_text(json.dumps({"top1": 0.5}))
      attempt.end("finished")

  def interrupt(self, name, number, step):
    with self.attempt(name, number) as (folder, attempt):
      self.take_steps(folder, step)
      attempt.end("interrupted")

  def take_steps(self, folder, step):
    with (folder / "metrics.jsonl").open("a") as file:
      file.write(json.dumps({"step": step}) + "\n")

  def failure(self, name):
    return ledger.failure(self.out / name)


@pytest.fixture
def mine(stub, tmp_path, monkeypatch):
  return Sweep(tmp_path / "out", monkeypatch)


def test_each_run_is_a_job_that_is_told_what_the_local_worker_is(stub, mine):
  def story():
    assert stub.submitted() == ["a", "b"]
    for number, name in enumerate("ab", 1):
      path = mine.out / "slurm" / f"{number}_submitted.pkl"
      delayed = submitit.core.utils.DelayedSubmission.load(path)
      assert delayed.args == (mine.watcher.job(planned(name)),)
      mine.finish(name, number)
    yield

  mine.watch(planned("a"), planned("b"), story=story)
  assert mine.queue.done == {"a", "b"}


def test_a_run_is_submitted_once_the_one_that_it_starts_from_is_finished(stub, mine):
  def story():
    assert stub.submitted() == ["a", "c"]
    yield
    assert stub.submitted() == ["a", "c"]
    mine.finish("a", 1)
    yield
    assert stub.submitted() == ["a", "c", "b"]
    mine.finish("b", 3)
    mine.finish("c", 2)
    yield

  mine.watch(planned("a"), planned("b", after="a"), planned("c"), story=story)


def test_as_many_jobs_at_once_as_are_allowed(stub, mine):
  def story():
    for number, name in enumerate("abc", 1):
      yield
      assert stub.submitted() == ["a", "b", "c"][:number]
      mine.finish(name, number)
      yield

  mine.watch(planned("a"), planned("b"), planned("c"), story=story, most=1)


def test_a_job_that_fails_leaves_its_error_and_the_others_go_on(stub, mine, capsys):
  def story():
    with mine.attempt("a", 1) as (folder, attempt):
      ledger.note_failure(folder, "The loss is not finite.")
      attempt.end("failed")
    stub.end(1, "COMPLETED")
    mine.finish("b", 2)
    yield
    yield

  mine.watch(planned("a"), planned("b"), planned("c", after="a"), story=story)
  assert mine.queue.failed["a"] == "The loss is not finite."
  assert mine.queue.failed["c"] == "It starts from the weights of a, which failed."
  assert mine.queue.done == {"b"}
  assert "[3/3] c" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("state", "why"),
  [
    ("CANCELLED", "Its Slurm job 1 was cancelled."),
    ("OUT_OF_MEMORY", "Its Slurm job 1 exceeded its memory"),
    ("FAILED", "Its Slurm job 1 was killed"),
    ("COMPLETED", "Its Slurm job 1 was killed"),
    (None, "Its Slurm job 1 was killed"),
  ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_is_gone_without_a_result_has_failed(stub, mine, state, why, begun):
  ledger.note_failure(mine.out / "a", "An earlier mistake.")

  def story():
    if begun:
      with mine.attempt("a", 1):
        pass
    if state is None:
      (stub.jobs / "1").unlink()
    else:
      stub.end(1, state)
    yield
    assert not mine.queue.failed
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.failed["a"].startswith(why)
  assert mine.failure("a") == mine.queue.failed["a"]


def test_the_sentence_says_where_the_job_has_told_more(stub, mine):
  log = mine.out / "slurm" / "1_0_log.err"

  def story():
    log.write_text("no such file")
    stub.end(1, "FAILED")
    yield
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.failed["a"].endswith(f"{log}.")


def test_a_job_that_is_missing_once_is_not_gone(stub, mine):
  def story():
    job = (stub.jobs / "1").read_text()
    (stub.jobs / "1").unlink()
    yield
    (stub.jobs / "1").write_text(job)
    yield
    (stub.jobs / "1").unlink()
    yield
    mine.finish("a", 1)  # a shared file system shows it late
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.done == {"a"}


def test_a_result_counts_once_the_job_has_written_all_it_writes(stub, mine):
  def story():
    with mine.attempt("a", 1) as (folder, attempt):
      (folder / "result.json").write_text(json.dumps({"top1": 0.5}))
    yield
    yield
    assert not mine.queue.done
    attempt.end("finished")
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.done == {"a"}


@pytest.mark.parametrize(
  "state", ["COMPLETED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "FAILED", None]
)
def test_a_run_that_was_interrupted_is_submitted_again(stub, mine, state, capsys):
  def story():
    mine.interrupt("a", 1, 40)
    if state is None:
      stub.end(1, "COMPLETING")
      yield
      stub.end(1, "COMPLETED")
    else:
      stub.end(1, state)
    yield
    yield
    assert stub.submitted() == ["a", "a"]
    mine.finish("a", 2)
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.done == {"a"}
  assert "a: interrupted at step 40" in capsys.readouterr().out


@pytest.mark.parametrize("state", ["TIMEOUT", "NODE_FAIL", "BOOT_FAIL"])
def test_an_end_without_a_save_that_is_not_its_fault_is_an_interruption_too(stub, mine, state):
  def story():
    with mine.attempt("a", 1) as (folder, _):
      mine.take_steps(folder, 40)
    stub.end(1, state)
    yield
    yield
    assert stub.submitted() == ["a", "a"]
    mine.finish("a", 2)
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.done == {"a"}


def test_who_cancels_a_job_does_not_want_it_again(stub, mine):
  def story():
    mine.interrupt("a", 1, 40)  # Slurm asks it to stop before it kills it
    stub.end(1, "CANCELLED")
    yield
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.failed["a"] == "Its Slurm job 1 was cancelled."


def test_a_run_that_gets_no_further_has_failed(stub, mine):
  def story():
    for number, step in enumerate((10, 20, 20, 20), 1):
      mine.interrupt("a", number, step)
      stub.end(number, "TIMEOUT")
      yield
      yield
    mine.interrupt("a", 5, 20)
    stub.end(5, "TIMEOUT")
    yield
    yield

  mine.watch(planned("a"), story=story)
  assert len(stub.submitted()) == 5
  assert "the last of 3 that were stopped before a further step" in mine.failure("a")
  assert "timeout_min" in mine.failure("a")


def test_jobs_of_an_earlier_sweep_are_watched_and_not_submitted_again(stub, mine, capsys):
  runs = [planned(name) for name in "abcd"]

  def first():
    mine.finish("a", 1)
    yield
    mine.stop.requested = True
    yield

  with pytest.raises(exits.Interrupted) as stopped:
    mine.watch(*runs, story=first, most=2)
  assert "3 of 4 runs left. 2 jobs in Slurm's queue will continue" in str(stopped.value)
  assert str(stopped.value).endswith("scancel 2 3")

  def second():
    assert stub.submitted() == ["a", "b", "c", "b", "d"]
    mine.finish("c", 3)
    mine.finish("b", 4)
    mine.finish("d", 5)
    yield

  stub.end(2, "FAILED")  # while nobody was there
  mine.stop.requested = False
  mine.watch(*runs, story=second)
  assert mine.queue.done == set("abcd")
  assert "already in Slurm's queue: 3." in capsys.readouterr().out


def test_jobs_of_other_sweeps_are_left_alone(stub, mine):
  (stub.jobs / "1").write_text("RUNNING|None|a\n")  # a run of the same name, from another folder
  (stub.folder / "script-1").write_text("#SBATCH --job-name=other\n")

  def story():
    assert stub.submitted() == ["other", "a"]
    mine.finish("a", 2)
    yield

  mine.watch(planned("a"), story=story)


@pytest.mark.parametrize("moment", ["submission_file", "submitted_pickle"])
def test_a_run_whose_submission_was_interrupted_is_submitted_again(stub, mine, moment, monkeypatch):
  class KilledError(Exception):
    """Stands for the end of the process."""

  move = submitit.core.utils.JobPaths.move_temporary_file

  def killed(self, path, name, **keywords):
    if name == moment:
      raise KilledError
    move(self, path, name, **keywords)

  with monkeypatch.context() as m:
    m.setattr(submitit.core.utils.JobPaths, "move_temporary_file", killed)
    with pytest.raises(KilledError):
      mine.watch(planned("a"), story=lambda: iter(()))

  def story():
    assert stub.submitted() == ["a", "a"]
    mine.finish("a", 2)
    yield

  mine.watch(planned("a"), story=story)
  assert mine.queue.done == {"a"}


def test_failed_runs_are_tried_again_and_finished_ones_are_not(stub, mine):
  def first():
    mine.finish("a", 1)
    stub.end(2, "FAILED")
    yield
    yield

  def second():
    assert stub.submitted() == ["a", "b", "b"]
    mine.finish("b", 3)
    yield

  mine.watch(planned("a"), planned("b"), story=first)
  assert mine.queue.failed.keys() == {"b"}
  mine.watch(planned("a"), planned("b"), story=second)
  assert mine.queue.done == {"a", "b"}
  assert mine.failure("b") is None


def test_where_slurm_takes_no_more_jobs_for_now_the_others_come_later(stub, mine, capsys):
  def story():
    (stub.folder / "refuse").write_text("error: too many jobs\n")
    mine.finish("a", 1)
    yield
    yield
    assert stub.submitted() == ["a", "b"]
    (stub.folder / "refuse").unlink()
    mine.finish("b", 2)
    yield
    assert stub.submitted() == ["a", "b", "c"]
    mine.finish("c", 3)
    yield

  mine.watch(planned("a"), planned("b"), planned("c"), story=story, most=2)
  assert capsys.readouterr().out.count("rejects further jobs for now: error: too many jobs.") == 1


def test_where_slurm_takes_none_at_all_a_sentence_says_why(stub, mine):
  (stub.folder / "refuse").write_text("error: invalid partition: x\n")
  with pytest.raises(errors.UserError, match=r"sbatch says: .*invalid partition: x\.$"):
    mine.watch(planned("a"), story=lambda: iter(()))


@pytest.mark.parametrize(("outages", "looks"), [(1, 3), (2, 2)])
def test_a_queue_that_does_not_answer_says_nothing_of_its_jobs_and_is_told_of_each_time(
  stub, mine, capsys, outages, looks
):
  def story():
    for _ in range(outages):
      (stub.folder / "silent").touch()
      yield from [None] * looks
      (stub.folder / "silent").unlink()
      yield
    mine.finish("a", 1)
    yield

  mine.watch(planned("a"), story=story)
  assert capsys.readouterr().out.count("squeue fails: no controller.") == outages


def test_without_a_look_at_the_queue_nothing_is_submitted(stub, mine):
  (stub.folder / "silent").touch()
  with pytest.raises(errors.UserError, match="squeue says: no controller"):
    mine.watch(planned("a"), story=lambda: iter(()))
  assert not stub.submitted()


def test_how_many_run_and_how_many_wait_is_told(stub, mine, monkeypatch):
  shown = []
  monkeypatch.setattr(queueing.Progress, "update", lambda self, status: shown.append(status))

  def story():
    stub.set(2, "PENDING", "Resources")
    stub.set(3, "PENDING", "Priority")
    yield
    for number, name in enumerate("abc", 1):
      mine.finish(name, number)
    yield

  mine.watch(planned("a"), planned("b"), planned("c"), story=story)
  assert shown[1] == "jobs: 1 running, 2 waiting (Priority, Resources)"


def test_options_reach_the_job(stub, mine):
  def story():
    mine.finish("a", 1)
    yield

  options = "partition=gpu,gpus_per_node=2,cpus_per_task=8,timeout_min=10,mem_gb=1.5,exclusive=true"
  mine.watch(planned("a"), story=story, options=options + ",setup=module load x, y")
  lines = (stub.folder / "script-1").read_text().splitlines()
  for option in (
    "partition=gpu",
    "gpus-per-node=2",
    "cpus-per-task=8",
    "time=10",
    "mem=1536MB",
    "exclusive",
    "signal=USR2@120",
    "job-name=a",
  ):
    assert f"#SBATCH --{option}" in lines
  assert "module load x, y" in lines
  (command,) = (line for line in lines if line.startswith("srun "))
  assert "--cpus-per-task=8" in command


def test_options_of_0_reach_the_job(stub, mine):
  def story():
    mine.finish("a", 1)
    yield

  mine.watch(planned("a"), story=story, options="gpus_per_node=0,mem_gb=0,exclusive=false")
  lines = (stub.folder / "script-1").read_text().splitlines()
  assert {"#SBATCH --gpus-per-node=0", "#SBATCH --mem=0GB"} <= set(lines)
  assert not any("exclusive" in line for line in lines)


def test_a_deterministic_run_adds_its_option_on_the_node(stub, mine, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--of_the_login_node")

  def story():
    mine.finish("a", 1)
    yield

  one = planned("a")
  one = dataclasses.replace(one, config=dataclasses.replace(one.config, deterministic=True))
  mine.watch(one, story=story, options="setup=export XLA_FLAGS=--mine")
  script = (stub.folder / "script-1").read_text()
  assert "--of_the_login_node" not in script
  setup = script.partition("# setup\n")[2].partition("# command")[0]
  told = subprocess.run(
    ["bash", "-c", f"{setup}printenv XLA_FLAGS"], capture_output=True, text=True, check=True
  )
  assert told.stdout == "--mine --xla_gpu_deterministic_ops=true\n"


def test_without_options_a_job_has_hours_and_minutes_to_save(stub, mine):
  def story():
    mine.finish("a", 1)
    yield

  mine.watch(planned("a"), story=story)
  lines = (stub.folder / "script-1").read_text().splitlines()
  assert {"#SBATCH --time=240", "#SBATCH --signal=USR2@300"} <= set(lines)
  assert not any("partition" in line or "exclusive" in line for line in lines)


def test_every_option_is_one_of_submitit(stub, tmp_path):
  values = {
    "exclusive": True,
    "setup": ["true"],
    **dict.fromkeys(("gpus_per_node", "cpus_per_task", "signal_delay_s", "timeout_min"), 1),
    "mem_gb": 0.5,
  }
  options = {name: values.get(name, "text") for name in slurm._OPTIONS}
  cluster = slurm.Cluster(tmp_path / "slurm", options)
  assert cluster.submit("a", job(tmp_path), []) == "1"
  script = (stub.folder / "script-1").read_text()
  for name in ("partition", "gres", "wckey", "mail_user", "mem_per_cpu"):
    assert f"#SBATCH --{name.replace('_', '-')}=text" in script


@pytest.mark.parametrize(
  ("flags", "facts"),
  [
    (["--slurm=partition=x"], ["--slurm needs --executor=slurm"]),
    (["--executor=slurm", "--slurm=partitions=x"], ["mean partition?", "timeout_min", "mem_gb"]),
    (["--executor=slurm", "--slurm=nodes=2"], ["Unknown Slurm option 'nodes'", "gpus_per_node"]),
    (["--executor=slurm", "--slurm=timeout_min=long"], ["timeout_min=long", "whole number"]),
    (["--executor=slurm", "--slurm=mem_gb=8GB"], ["mem_gb=8GB", "a number of gigabytes"]),
    (["--executor=slurm", "--slurm=mem_gb=nan"], ["mem_gb=nan", "a number of gigabytes"]),
    (["--executor=slurm", "--slurm=mem_gb=-1"], ["mem_gb=-1", "a number of gigabytes"]),
    (
      ["--executor=slurm", "--slurm=timeout_min=2,signal_delay_s=120"],
      ["signal_delay_s=120", "timeout_min=2, 120 seconds"],
    ),
    (["--executor=slurm", "--slurm=exclusive=maybe"], ["exclusive=maybe", "true or false"]),
  ],
)
def test_mistakes_end_in_a_sentence(stub, tmp_path, flags, facts, capsys):
  assert command(tmp_path, *flags) == exits.USER_ERROR
  error = capsys.readouterr().err
  assert error.count("\n") == 1
  for fact in facts:
    assert fact in error
  assert not stub.submitted()


@pytest.mark.parametrize("program", ["sbatch", "squeue"])
def test_without_slurm_a_sentence_says_where_to_go(stub, tmp_path, program, monkeypatch, capsys):
  (tmp_path / "bin" / program).unlink()
  monkeypatch.setenv("PATH", str(tmp_path / "bin"))
  assert command(tmp_path, "--executor=slurm") == exits.USER_ERROR
  assert f"needs {program}, which is not on this machine's PATH" in capsys.readouterr().err


def test_without_submitit_a_sentence_says_what_to_install(stub, tmp_path, monkeypatch, capsys):
  find = slurm.importlib.util.find_spec
  monkeypatch.setattr(
    slurm.importlib.util, "find_spec", lambda n: None if n == "submitit" else find(n)
  )
  assert command(tmp_path, "--executor=slurm") == exits.USER_ERROR
  assert "pip install 'bit_jax[slurm]'" in capsys.readouterr().err


def test_runs_are_not_made_here_while_slurm_has_them(stub, mine, tmp_path, capsys):
  def story():
    mine.stop.requested = True
    yield

  with pytest.raises(exits.Interrupted):
    mine.watch(planned("a"), story=story)
  assert command(tmp_path) == exits.USER_ERROR
  assert (
    "resume it with --executor=slurm, or cancel them first: scancel 1" in capsys.readouterr().err
  )
  (stub.folder / "silent").touch()  # then nobody knows
  assert command(tmp_path) == exits.USER_ERROR
  assert "Slurm's queue can't be read: squeue says: no controller." in capsys.readouterr().err
  slurm.require_no_jobs(tmp_path / "other" / "slurm")  # which has never had any
  (stub.folder / "silent").unlink()
  stub.end(1, "CANCELLED")
  slurm.require_no_jobs(mine.out / "slurm")


def test_whether_slurm_has_runs_is_asked_once_no_other_sweep_is_at_work(
  stub, tmp_path, monkeypatch, capsys
):
  @contextlib.contextmanager
  def exclusive(path, *_):
    # By the sweep that has the lock.
    cluster = slurm.connect(slurm.options(None), path.parent / "slurm")
    cluster.submit("a", job(path.parent), [])
    with path.open("w") as file:
      yield file

  monkeypatch.setattr(files, "exclusive", exclusive)
  assert command(tmp_path) == exits.USER_ERROR
  assert "cancel them first: scancel 1" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
@pytest.mark.parametrize("listening", [False, True])
def test_slurm_asks_a_job_to_stop(tmp_path, number, listening, monkeypatch):
  def train_and_evaluate(config, workdir, weights_at):
    with stopping.StopRequest() if listening else contextlib.nullcontext() as stop:
      signal.raise_signal(number)
      assert listening, "It was to end at once."
      assert stop.requested
      raise exits.Interrupted("Stopped after step 1 of 2.")

  monkeypatch.setattr(fine_tuning, "train_and_evaluate", train_and_evaluate)
  monkeypatch.setattr(worker, "prepare", lambda: None)
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  earlier = {n: signal.getsignal(n) for n in (signal.SIGUSR2, signal.SIGTERM)}
  try:
    assert slurm_job.make(job(tmp_path)) == "interrupted"
    signal.raise_signal(number)  # what comes late ends nothing
  finally:
    for one, handler in earlier.items():
      signal.signal(one, handler)
  assert ledger.outcome(tmp_path / "a", "7") == "interrupted"
  assert ledger.outcome(tmp_path / "a", "8") is None
  log = (tmp_path / "a" / "log.txt").read_text()
  assert ("Stopped after step 1" if listening else "Stopped before the first step.") in log


def command(tmp_path, *flags):
  path = tmp_path / "mine.py"
  body = "import running\nfrom experiments.sweeping import grid\n"
  path.write_text(body + "def get_runs():\n  yield grid.Run(running.config())\n")
  return exits.run(sweep.main, ["sweep", f"--config={path}", f"--out={tmp_path}/out", *flags])


@pytest.mark.slow
def test_a_run_whose_time_is_over_goes_on_in_another_job(stub, tmp_path, tmp_path_factory):
  (stub.folder / "nodes").mkdir()
  out, path = tmp_path / "out", tmp_path / "mine.py"
  path.write_text(
    textwrap.dedent(f"""
      import sys
      sys.path.append({str(running.ROOT / "tests")!r})
      import running
      from experiments.sweeping import grid

      def get_runs():
        fields = dict.fromkeys(("total_steps", "eval_every", "checkpoint_every"), 30)
        yield grid.Run(running.config(**fields, log_every=1))
    """)
  )
  line = [sys.executable, "-m", "experiments.sweep", f"--config={path}", f"--out={out}"]
  line.append("--executor=slurm")
  process = running.start(line, tmp_path_factory, XLA_FLAGS=running.xla_flags(1))
  # The file is there, but empty, before the first step.
  while not any(log.stat().st_size for log in out.glob("*/metrics.jsonl")):
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)
  os.kill(int((stub.folder / "nodes" / "1.pid").read_text()), signal.SIGUSR2)
  status, text, error = running.finish(process, 900)
  assert (status, error) == (0, ""), text + error
  assert "interrupted at step" in text
  assert "1 run finished, none failed." in text
  (record,) = out.glob("*/sweep.json")
  attempts = json.loads(record.read_text())["attempts"]
  assert [(a["outcome"], a["slurm_job"]) for a in attempts] == [
    ("interrupted", "1"),
    ("finished", "2"),
  ]
  assert "Resuming after step" in (record.parent / "log.txt").read_text()
  assert (out / "slurm" / "2_0_log.out").exists()
