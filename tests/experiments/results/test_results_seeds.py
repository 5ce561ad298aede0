"""The runs of one setting as a point."""

import pytest
import run_folders

from experiments.results import seeds


def of_shots(tmp_path, *settings):
  runs = [(run_folders.config(f"model=R14x0.5,shots={n},seed={s}"), t) for n, s, t in settings]
  return run_folders.written(tmp_path, *runs)


def test_runs_that_differ_in_their_seeds_are_a_point(tmp_path):
  found = of_shots(tmp_path, (5, 0, 0.3), (10, 0, 0.6), (5, 1, 0.5), (5, 2, 0.35))
  points = seeds.points(found, lambda run: run.shots)
  assert list(points) == [5, 10]
  assert [len(one.runs) for one in points.values()] == [3, 1]
  top1 = points[5].top1
  assert (top1.low, top1.median, top1.high) == pytest.approx((30, 35, 50))


def test_networks_rank_by_size_and_unknown_ones_come_last(tmp_path):
  for name in ("R101x1", "R14x0.5", "R50x1"):
    run_folders.write(tmp_path / name, run_folders.config(f"model={name},weights=none"), 0.5)
  config = {**run_folders.config("model=R50x1,weights=none").to_dict(), "model": "A"}
  folder = run_folders.write(tmp_path / "A", run_folders.config(), 0.5)
  run_folders.dump(folder / "config.json", config)
  found = run_folders.collected(tmp_path).runs
  ordered = sorted(found, key=lambda run: seeds.rank(seeds.point([run])))
  assert [run.architecture for run in ordered] == ["R14x0.5", "R50x1", "R101x1", "A"]
  assert seeds.num_parameters("R50x1") == 23_500_352


def test_differences_are_of_runs_with_the_same_seed(tmp_path):
  def point(name, **top1):
    runs = [
      (run_folders.config(f"model=R14x0.5,shots=5,seed={seed[1:]}"), value)
      for seed, value in top1.items()
    ]
    return seeds.point(run_folders.written(tmp_path / name, *runs))

  reference = point("a", s0=0.40, s1=0.45, s2=0.50, s3=0.10)
  other = point("b", s2=0.52, s1=0.44, s7=0.9)
  assert sorted(seeds.paired_differences(other, reference)) == pytest.approx([-1, 2])
  assert seeds.paired_differences(point("c", s7=0.5), reference) == []
