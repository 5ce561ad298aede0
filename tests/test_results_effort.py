"""What runs took."""

import run_folders

from experiments.results import collect, effort


def written(folder, *runs):
  """Writes runs given as (config, top1, what else `run_folders.write` takes)."""
  for number, (config, top1, more) in enumerate(runs):
    run_folders.write(folder / str(number), config, top1, **more)
  return collect.collect(folder).runs


def test_the_first_run_of_a_program_and_the_later_ones(tmp_path):
  def run(arguments, minute, seconds, **fields):
    more = {
      "sweep": "mine",
      "environment": {"started": f"2026-11-22T09:{minute:02}:00+00:00"},
      "result": {"startup_seconds": seconds},
    }
    return run_folders.reduced(f"model=R14x0.5,{arguments}", **fields), 0.5, more

  found = written(
    tmp_path,
    run("shots=5,seed=1", 10, 3.0),
    run("shots=5,seed=0", 5, 30.0),  # the first, whatever its folder is called
    run("shots=10", 20, 5.0),  # other examples, the same program
    run("shots=10,preset=paper", 30, 4.0),  # another schedule, too
    run("shots=1", 40, None),
    run("shots=25", 50, 20.0, crop=40),  # another program, alone
  )
  (startup,) = effort.startups(found)
  assert startup.sizes == ("R14x0.5", 56, 48, 64, 10)
  assert (startup.first, startup.others.count, startup.others.median) == (30.0, 3, 4.0)


def test_what_runs_took_adds_up(tmp_path):
  def run(seed, rate, seconds, **fields):
    more = {"sweep": "mine", "seconds": seconds, "result": {"images_per_second": rate}}
    return run_folders.reduced(f"model=R14x0.5,shots=5,seed={seed}", **fields), 0.5, more

  found = written(
    tmp_path,
    run(0, 400.0, (10.0, 30.0)),
    run(1, 100.0, (20.0,)),
    run(2, 200.0, (25.0,)),
    run(3, None, (1.0,)),
    run(4, 300.0, (50.0,), length=0.4),
  )
  first, second = effort.efforts(found)
  assert first.sizes == ("R14x0.5", 56, 48, 64, 100)
  assert (first.count, first.images, first.rate, first.seconds) == (3, 6400, 200.0, 85.0)
  assert (second.count, second.images, second.sizes[4]) == (1, 12_800, 200)


def test_time_that_no_sweep_took_is_not_known(tmp_path):
  (one,) = effort.efforts(written(tmp_path, (run_folders.reduced(), 0.5, {})))
  assert (one.seconds, one.rate) == (None, 272.0)
