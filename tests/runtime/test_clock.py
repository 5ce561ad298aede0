"""What counts as training time."""

import pytest

from bit_jax.runtime import clock


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


def test_the_pace_is_that_of_this_part_of_a_run(now):
  c = clock.StepClock(seconds=500.0, steps=5)
  assert c.seconds_a_step is None
  c.step_done()
  assert c.seconds_a_step is None
  for seconds in (2, 4):
    now[0] += seconds
    c.step_done()
  assert c.seconds_a_step == 3


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(0, "0s"), (7.4, "7s"), (59.6, "1m 00s"), (307, "5m 07s"), (3599.9, "1h 00m"), (7500, "2h 05m")],
)
def test_format_seconds(seconds, text):
  assert clock.format_seconds(seconds) == text


def test_the_pace_of_images_leaves_out_the_first_batch(now):
  pace = clock.Pace()
  assert str(pace) == "0 images in 0s"
  now[0] += 60  # compiling
  pace.add(64)
  now[0] += 2
  assert str(pace) == "64 images in 1m 02s"
  for _ in range(3):
    pace.add(312)
  assert str(pace) == "1,000 images in 1m 02s, 468 images/s"
