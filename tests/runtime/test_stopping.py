"""Tests of bit_jax.runtime.stopping."""

import os
import signal
import threading

import pytest

from bit_jax.runtime import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number):
  with stopping.StopRequest() as stop:
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested


def test_a_second_ctrl_c_stops_at_once():
  with stopping.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested


def test_a_second_sigterm_does_not():
  with stopping.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_earlier_handlers_return_also_after_an_error():
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.getsignal(n) for n in numbers]

  def fail():
    with stopping.StopRequest():
      assert [signal.getsignal(n) for n in numbers] != before
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    fail()
  assert [signal.getsignal(n) for n in numbers] == before


def test_other_threads_only_never_see_a_request():
  seen = []

  def listen():
    with stopping.StopRequest() as stop:
      seen.append(stop.requested)

  thread = threading.Thread(target=listen)
  thread.start()
  thread.join()
  assert seen == [False]


def test_a_terminal_that_hangs_up_is_a_request_unless_told_otherwise():
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
  try:
    with stopping.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert stop.requested
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with stopping.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not stop.requested
  finally:
    signal.signal(signal.SIGHUP, before)
