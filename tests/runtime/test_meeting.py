"""What one of several processes does about the others; here, connections stand for them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import types

import jax
import pytest
import running

from bit_jax.runtime import cluster, exchange, exits, links, meeting, processes


class Left(BaseException):
  """Stands for the end of the process."""


@pytest.fixture
def left(monkeypatch):
  """The exit statuses with which the process would have ended."""
  statuses = []

  def leave(status):
    statuses.append(status)
    raise Left

  monkeypatch.setattr(os, "_exit", leave)
  monkeypatch.setattr(exchange, "GRACE", 0)
  return statuses


def met_as(index=0, count=2):
  return meeting.Meeting(cluster.Place("127.0.0.1", 1, count, index))


@pytest.mark.parametrize("message", [{"round": 1}, {"status": 0}, {"round": [], "value": 0}])
def test_a_process_that_can_not_watch_the_others_ends_with_a_sentence(
  left, capsys, connection, message
):
  met, (one, other_end) = met_as(), connection
  met._exchange._links = {1: one}
  other_end.send(message)
  with pytest.raises(Left):
    met._exchange._watch()
  assert left == [1]
  err = capsys.readouterr().err
  assert err.startswith("error: process 0 can't follow the other processes any more (")
  assert err.count("\n") == 1


@pytest.mark.parametrize("status", [0, 2])
def test_what_jax_does_at_the_end_does_not_change_the_status(left, status):
  met = met_as(index=1)
  met._leaving, met._status = True, status
  with pytest.raises(Left):
    met._aborted()
  assert left == [status]


@pytest.mark.parametrize(
  ("line", "said"),
  [
    (
      "client.h:80] Terminating process because the JAX distributed service detected fatal errors.",
      "error: Process 1 has had no sign of another one for 30 s, so that it ends: that one is "
      "frozen, or its machine or the network failed. Run the same command in all processes again "
      "to resume.",
    ),
    (
      "agent.cc:289] Polled an error from coordination service (of this or another task).",
      "error: Process 1 has had no sign of another one for 30 s, so that it ends: that one is "
      "frozen, or its machine or the network failed. Run the same command in all processes again "
      "to resume.",
    ),
    (
      "cpu/collectives.cc:9] Rendezvous timed out.",
      "error: JAX ended process 1: Rendezvous timed out. Run the same command in all processes "
      "again to resume.",
    ),
  ],
)
def test_what_jax_says_before_it_aborts(left, capsys, monkeypatch, line, said):
  met = met_as(index=1)
  monkeypatch.setattr(meeting, "_VERDICT", 0)
  lines = []
  met._filter = types.SimpleNamespace(first_line=lambda: line, say=lines.append, log="x.log")
  with pytest.raises(Left):
    met._aborted()
  assert left == [exits.LOST]
  assert lines == [f"{said} Details: x.log"]


def test_the_first_process_decides(monkeypatch):
  monkeypatch.setattr(processes, "gather", lambda value: ["of process 0", value])
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert processes.decided(lambda: pytest.fail("it must not look itself")) == "of process 0"
  monkeypatch.undo()
  assert processes.decided(lambda: [1]) == [1]


WAITS = """
import sys
from bit_jax.runtime import cluster, links, meeting, rendezvous, signals
link = links.connect("127.0.0.1", int(sys.argv[1]), 5)
rendezvous.meet = lambda place: ({0: link}, ["here", "there"])
with signals.listening(), meeting.Meeting(cluster.Place("127.0.0.1", 1, 2, 1)):
  pass
"""


def test_a_process_that_only_waits_for_the_others_loses_nothing():
  with socket.create_server(("127.0.0.1", 0)) as server:
    line = [sys.executable, "-c", WAITS, str(server.getsockname()[1])]
    process = subprocess.Popen(line, cwd=running.ROOT, stderr=subprocess.PIPE, text=True)
    with process, contextlib.closing(links.Link(server.accept()[0])) as zero:
      assert zero.receive() == [{"status": 0, "text": "", "together": True}]
      process.send_signal(signal.SIGTERM)
      _, err = process.communicate()
      assert process.returncode == 128 + signal.SIGTERM
      assert err == f"{meeting._FINISHED}\n"
      with pytest.raises(links.Gone):  # the others are not asked to stop
        zero.receive()
