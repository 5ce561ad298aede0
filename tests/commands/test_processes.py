"""Several processes as one run: two of two devices each, on this machine."""

import contextlib
import json
import re
import socket

import numpy as np
import pytest
import running

from bit_jax.runtime import exits
from bit_jax.training import optimizer

pytestmark = pytest.mark.slow

ARGUMENTS = "shots=3,protocol=select"
# The best evaluation is that of step 4, before rates that spoil everything.
RATES = [0.0, *[0.03] * 3, *[1.0] * 8]
FIELDS = {"total_steps": 12, "eval_every": 1, "log_every": 5, "patience": 2, "keep_best": True}

# The command, except that a process gets a signal in a step, and may write only if it is the first.
COMMAND = f"""
import os, signal, sys
import numpy as np
from bit_jax import train
from bit_jax.data import order
from bit_jax.runtime import exits
from bit_jax.training import optimizer

at, number, folder = int(os.environ.get("AT", -1)), int(os.environ.get("SIGNAL", 0)), sys.argv[1]

def mixup_lambda(seed, step, alpha):
  if step == at:
    os.kill(os.getpid(), number)
  return original(seed, step, alpha)

def watch(event, arguments):
  written = event in ("os.mkdir", "os.rename", "os.remove", "os.truncate", "os.link", "os.symlink")
  if event == "open":
    path, mode, flags = arguments
    written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
  if written and str(arguments[0]).startswith(folder):
    print("wrote", event, arguments[0], file=sys.stderr)

optimizer.learning_rates = lambda *_: np.array({RATES}, np.float32)
original, order.mixup_lambda = order.mixup_lambda, mixup_lambda
if os.environ["JAX_PROCESS_ID"] != "0":
  sys.addaudithook(watch)
exits.leave(exits.run(train.main, ["train", *sys.argv[2:]], needs_reader=False))
"""
# What Gloo's threads write, each of them in pieces that may stand among those of another.
GLOO = re.compile(
  r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d+"
)


def free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def run(tmp_path_factory, folder, *flags, of=(((), {}), ((), {}))):
  """Runs a command in several processes; returns (status, output, error output) of each.

  Args:
    tmp_path_factory: Of pytest.
    folder: The run folder.
    flags: Flags of all processes.
    of: For each process, (its own flags, its own variables).
  """
  common = {
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
    "JAX_NUM_PROCESSES": "2",
    "XLA_FLAGS": running.xla_flags(2),
  }
  started = []
  with contextlib.ExitStack() as stack:
    for index, (own_flags, own) in enumerate(of):
      all_flags = ("--workdir", str(folder), "--distributed", *flags, *own_flags)
      line = running.command(*all_flags, arguments=ARGUMENTS, **FIELDS)
      line[1:3] = ["-c", COMMAND, str(folder)]
      variables = {**common, "JAX_PROCESS_ID": str(index), **own}
      started.append(running.start(line, tmp_path_factory, **variables))
      stack.callback(started[-1].kill)
    return [running.finish(process) for process in started]


def last_line(err):
  assert "Traceback" not in err, err
  return err.splitlines()[-1]


def test_two_processes_that_stop_and_resume_equal_one(tmp_path, tmp_path_factory, monkeypatch):
  """Of two that stream, one is asked to stop in step 4; this process has four devices.

  Patience ends the run after step 6, which only those know that know the evaluations before.
  """
  with running.compilation_cache(tmp_path_factory), monkeypatch.context() as patch:
    patch.setattr(optimizer, "learning_rates", lambda *_: np.array(RATES, np.float32))
    expected = running.train(tmp_path / "one", ARGUMENTS, **FIELDS)
  assert (expected["best_step"], expected["steps"]) == (4, 6)
  folder, streamed = tmp_path / "two", "--config.resident_share=0.0"
  asked = [((), {}), ((), {"AT": "3", "SIGNAL": "10"})]  # SIGUSR1
  for status, _, err in run(tmp_path_factory, folder, streamed, of=asked):
    assert status == 128 + 10, err
    assert "wrote" not in err
    step = int(re.search(r"^Stopped .*after step (\d+)", err, re.MULTILINE)[1])
    assert 4 <= step <= 6  # the same in both, or they would still wait
  (status, out, err), (other, other_out, other_err) = run(tmp_path_factory, folder, streamed)
  assert (status, other) == (0, 0), err + other_err
  assert f"Resuming after step {step}." in out
  assert "The training and test images are streamed" in out
  assert re.search(r"2 processes:\n  process 0: 2 x cpu on .*\n  process 1: 2 x cpu on ", out)
  result = json.loads((folder / "result.json").read_text())
  for name in ("num_test", "steps", "best_step", "top1"):
    assert result[name] == expected[name], name
  assert result["loss"] == pytest.approx(expected["loss"], abs=1e-4)
  one, two = running.arrays(tmp_path / "one"), running.arrays(folder)
  for key, value in one.items():
    np.testing.assert_allclose(two[key], value, atol=1e-5)
  losses = [{r["step"]: r["loss"] for r in running.rows(f)} for f in (tmp_path / "one", folder)]
  assert losses[1] == pytest.approx(losses[0], abs=1e-4)
  environment = json.loads((folder / "environment.json").read_text())
  assert (environment["num_processes"], environment["num_devices"]) == (2, 4)
  assert "Top-1 accuracy" in out
  # All that is said comes from the first process, and it alone writes.
  assert not GLOO.sub("", other_out).strip()
  assert "wrote" not in other_err


@pytest.mark.parametrize(
  ("of_second", "status", "said"),
  [
    (
      (["--config.seed=1", "--config.batch_size=24", "--workdir={folder}-of-its-own"], {}),
      2,
      "batch_size is 16 in process 0 and 24 in process 1, seed is 0 in process 0 and 1 in process",
    ),
    ((["--config.sede=1"], {}), 2, "has no field 'sede'"),
    ((["--workdir={folder}-of-its-own"], {}), 2, "The run folder is not shared"),
    (([], {"AT": "0", "SIGNAL": "15"}), 143, "Stopped while the run was prepared"),  # SIGTERM
    (([], {"AT": "2", "SIGNAL": "9"}), exits.LOST, "Process 1 on "),  # SIGKILL
  ],
)
def test_what_differs_or_fails_in_one_ends_both(
  tmp_path, tmp_path_factory, of_second, status, said
):
  flags, variables = of_second
  own = [flag.format(folder=tmp_path / "run") for flag in flags]
  folder, streamed = tmp_path / "run", "--config.resident_share=0.0"
  ended = run(tmp_path_factory, folder, streamed, of=[((), {}), (own, variables)])
  killed = variables.get("SIGNAL") == "9"
  assert [e[0] for e in ended] == [status, -9 if killed else status], ended
  for _, _, err in ended[: 1 if killed else 2]:
    assert said in last_line(err)
  assert not killed or "was lost" in last_line(ended[0][2])
  assert not list(tmp_path.glob("run-of-its-own"))
  assert not list(folder.glob(".seen-by-all*"))


def test_the_first_process_is_lost(tmp_path, tmp_path_factory):
  """JAX's own client aborts then; its trace is in a file."""
  folder, streamed = tmp_path / "run", "--config.resident_share=0.0"
  of = [((), {"AT": "2", "SIGNAL": "9"}), ((), {"TMPDIR": str(tmp_path)})]
  (killed, _, _), (status, _, err) = run(tmp_path_factory, folder, streamed, of=of)
  assert (killed, status) == (-9, exits.LOST), err
  assert last_line(err).startswith("error: Process 0 on ")
  assert "Run the same command in all processes again to resume." in last_line(err)
  assert "Check failure" not in err
  for log in tmp_path.glob("bit_jax-process-1-*.log"):
    assert f"Details: {log}" in last_line(err)


def test_a_process_without_the_flag_does_not_run_alone(tmp_path, tmp_path_factory):
  line = running.command("--workdir", str(tmp_path / "run"))
  status, _, err = running.finish(running.start(line, tmp_path_factory, JAX_NUM_PROCESSES="2"))
  assert status == 2
  assert last_line(err).startswith("error: JAX_NUM_PROCESSES=2 says that this is one of several")
  assert not (tmp_path / "run").exists()
