"""What counts as training time."""

import pytest

from bit_jax import clock


@pytest.fixture
def now(monkeypatch):
  """A time that only moves when it is told to."""
  time = [1000.0]
  monkeypatch.setattr(clock.time, "monotonic", lambda: time[0])
  return time


def test_the_first_step_and_pauses_are_left_out(now):
  c = clock.StepClock()
  now[0] += 60  # compiling
  with c.paused():
    now[0] += 5
  c.step_done()
  assert (c.seconds, c.steps) == (0, 0)
  now[0] += 2
  c.step_done()
  with c.paused():
    now[0] += 100
  now[0] += 3
  c.step_done()
  assert (c.seconds, c.steps) == (5, 2)


def test_it_goes_on_from_earlier_parts(now):
  c = clock.StepClock(seconds=7.5, steps=3)
  c.step_done()
  now[0] += 1.5
  c.step_done()
  assert (c.seconds, c.steps) == (9, 4)
