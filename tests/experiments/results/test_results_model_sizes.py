"""Networks that differ in size alone."""

import pytest
import run_folders

from bit_jax.data import vtab
from experiments.results import model_sizes, vtab_means

CPU = "cpu (Linux x86_64, 2 cores)"


def sized(model, top1, seconds, arguments="shots=5", dataset="cifar10", **more):
  config = run_folders.config(f"model={model},{arguments}", dataset)
  return config, top1, {"sha": model[::-1].ljust(64), "result": {"seconds": seconds}, **more}


def test_sizes(tmp_path):
  found = run_folders.written(
    tmp_path,
    sized("BiT-M-R101x1", 0.7, 30.0),
    sized("BiT-M-R50x1", 0.6, 10.0),
    sized("BiT-M-R50x1", 0.62, 14.0, "shots=5,seed=1"),
    sized("BiT-M-R50x1", 0.9, 99.0, "seed=1"),
    sized("BiT-S-R50x1", 0.5, 10.0),
    sized("BiT-M-R50x3", 0.6, 1.0, environment={"device": "H200"}),
  )
  by_key = {(one.start, one.device): one for one in model_sizes.sizes(found)}
  assert set(by_key) == {("BiT-M", CPU), ("BiT-S", CPU), ("BiT-M", "H200")}
  five, full = by_key["BiT-M", CPU].series[5], by_key["BiT-M", CPU].series[None]
  assert [size.architecture for size in five] == ["R50x1", "R101x1"]
  assert (five[0].seconds, five[0].value, five[0].count) == (12.0, pytest.approx(61), 2)
  assert five[0].parameters == 23_500_352
  assert [size.architecture for size in full] == ["R50x1"]


def test_sizes_by_the_score(tmp_path):
  runs = [
    sized(model, top1, 23.5, "seed=0", f"vtab/{task}")
    for model, top1 in (("BiT-M-R50x1", 0.5), ("BiT-M-R101x1", 0.52))
    for task in vtab.TASKS
  ]
  (one,) = model_sizes.sizes(
    run_folders.written(tmp_path, *runs, sized("BiT-M-R50x3", 0.5, 1.0, "seed=0", "vtab/svhn"))
  )
  assert one.dataset == vtab_means.VTAB
  assert [size.architecture for size in one.series[None]] == ["R50x1", "R101x1"]
  assert [size.seconds for size in one.series[None]] == [19 * 23.5] * 2
  small, large = (size.value for size in one.series[None])
  assert large - small == pytest.approx(2)
