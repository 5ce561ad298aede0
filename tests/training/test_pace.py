"""How long a run takes is told, and where that is hours, flags that make it minutes."""

import dataclasses

import pytest
import resolving

from bit_jax.configs import cifar10
from bit_jax.training import pace


def resolved(**fields):
  config = cifar10.get_config("model=R14x0.5")
  config.update(fields)
  return resolving.resolve(config)[0]


def test_a_run_of_minutes_is_one_line():
  config = resolved(total_steps=500, eval_every=100)
  assert pace.report(1.6, 3, config) == [
    "About 1.6 s a step: the 497 steps left take about 13m 15s, 5 evaluations not included."
  ]
  assert pace.report(0.0123, 499, config) == [
    "About 0.012 s a step: the last step takes about 1s, 1 evaluation not included."
  ]
  assert pace.report(0.002, 100, config)[0].startswith("About 2 ms a step: the 400 steps left")
  odd = resolved(total_steps=500, eval_every=150)
  assert pace.report(1.0, 300, odd)[0].endswith(" 2 evaluations not included.")  # 450 and the last


@pytest.mark.parametrize(
  ("seconds", "flags"),
  [
    (8.0, "--config.total_steps=300 --config.preset=readme_128 --config.batch_size=128"),
    (
      108.0,
      "--config.total_steps=355 --config.preset=readme_128 --config.batch_size=128 "
      "--config.resize=40 --config.crop=32",
    ),
  ],
)
def test_a_run_of_hours_has_flags_that_make_it_minutes(seconds, flags):
  config = resolved(model="BiT-M-R50x1", total_steps=500, resize=160, crop=128, batch_size=512)
  _, advice = pace.report(seconds, 3, config)
  assert f": {flags}. A smaller model takes less time, too: R14x0.5." in advice
  assert " in about 9m 59s on this machine" in advice or " in about 10m 00s" in advice
  for text in flags.split():
    field, value = text.removeprefix("--config.").split("=")
    config = dataclasses.replace(config, **{field: int(value) if value.isdigit() else value})
  resolving.resolve(config)


def test_no_flag_makes_a_run_larger():
  config = resolved(total_steps=20, resize=40, crop=32, batch_size=8)
  flags, seconds = pace.shorter(3600.0, config)
  assert (flags, seconds) == (["--config.total_steps=1"], 3600.0)
  assert "smaller model" not in pace.report(3600.0, 3, config)[1]


def test_a_slow_first_step_reports_the_pace_once():
  lines = []
  slow = pace.Pace(resolved(total_steps=100), first=10, say=lines.append)
  slow.part_of_first_step_done(1, 8, now=300.0)  # it was compiled
  slow.part_of_first_step_done(2, 8, now=306.0)
  assert lines == []
  slow.part_of_first_step_done(3, 8, now=312.0)
  assert lines[0].startswith("About 48 s a step: the 90 steps left take")
  reported = list(lines)
  slow.part_of_first_step_done(8, 8, now=342.0)
  assert lines == reported
  assert not slow.is_due(12)


@pytest.mark.parametrize(("seconds", "reports"), [(0.5, [13]), (10.0, [12])])
def test_the_pace_is_reported_after_three_steps_or_two_slow_ones(seconds, reports):
  lines, found = [], []
  measured = pace.Pace(resolved(total_steps=100), first=10, say=lines.append)
  for done in range(11, 16):
    before = len(lines)
    if measured.is_due(done):
      measured.step_done(done, seconds)
    if len(lines) > before:
      found.append(done)
  assert found == reports


def test_a_warm_up_or_micro_batch_that_does_not_suit_the_shorter_run_is_changed_too():
  config = resolved(
    total_steps=1000, warmup_steps=400, batch_size=512, microbatch=256, resize=160, crop=128
  )
  flags, _ = pace.shorter(8.0, config)
  assert flags == [
    *("--config.total_steps=300", "--config.warmup_steps=120", "--config.preset=readme_128"),
    *("--config.batch_size=128", "--config.microbatch=auto"),
  ]
