"""Names of what networks start from."""

import pytest
import run_folders

_LABEL = "pre-trained on CIFAR-100"


def labelled(dataset, label, arguments="", **more):
  config = run_folders.config(f"model=R14x0.5{arguments}", dataset)
  return config, 0.5, {"sweep": "offline" if label else None, "start": label, **more}


def starts(folder, *runs):
  return {(run.dataset, run.start) for run in run_folders.written(folder, *runs)}


def test_names_of_starts(tmp_path):
  for name, arguments, sha, label in (
    ("0", "weights=none", None, None),
    ("1", "weights=/home/me/runs/half/model.npz", "a" * 64, None),
    ("2", "weights=runs/part/model.npz", "b" * 64, "pre-trained on a part"),
    ("3", "weights=elsewhere/part/model.npz", "b" * 64, None),  # the same file
    ("4", "weights=/mnt/runs/half/model.npz", "c" * 64, None),  # another, of the same name
  ):
    config = run_folders.config(f"model=R14x0.5,seed={name},{arguments}")
    sweep = "offline" if label else None
    run_folders.write(tmp_path / name, config, 0.5, sha=sha, sweep=sweep, start=label)
  starts = {run.name: run.start for run in run_folders.collected(tmp_path).runs}
  assert starts == {
    "0": "random initialisation",
    "1": "half/model.npz (aaaaaaaa)",
    "2": "pre-trained on a part",
    "3": "pre-trained on a part",
    "4": "half/model.npz (cccccccc)",
  }


def test_a_sweep_s_name_of_a_start_comes_before_any_other(tmp_path):
  for seed, label in enumerate((None, "pre-trained on CIFAR-100", None)):
    config = run_folders.config(f"model=R14x0.5,seed={seed}")
    sweep = "offline" if label else None
    run_folders.write(tmp_path / str(seed), config, 0.5, sweep=sweep, start=label)
  assert {run.start for run in run_folders.collected(tmp_path).runs} == {"pre-trained on CIFAR-100"}
  assert run_folders.collected(tmp_path).runs[0].network == "R14x0.5, pre-trained on CIFAR-100"


def test_a_sweep_may_call_a_checkpoint_otherwise_on_other_data(tmp_path):
  assert starts(
    tmp_path,
    labelled("cifar10", _LABEL),
    labelled("cifar10", None, ",seed=1"),
    labelled("vtab/cifar100", f"{_LABEL} itself"),
    labelled("vtab/cifar100", None, ",seed=1"),
    labelled("oxford_iiit_pet", None),
  ) == {
    ("cifar10", _LABEL),
    ("vtab/cifar100", f"{_LABEL} itself"),
    ("oxford_iiit_pet", _LABEL),
  }


@pytest.mark.parametrize("datasets", [("cifar10", "cifar10"), ("vtab/svhn", "vtab/cifar100")])
def test_what_stands_in_one_figure_has_one_name(tmp_path, datasets):
  first, second = datasets
  runs = (labelled(first, _LABEL), labelled(second, f"{_LABEL} itself", ",seed=1"))
  assert {start for _, start in starts(tmp_path, *runs)} == {_LABEL}


def test_two_sweeps_that_call_a_checkpoint_otherwise_are_no_reason_for_two_names(tmp_path):
  found = starts(
    tmp_path,
    labelled("cifar10", _LABEL),
    labelled("cifar100", "the embedded checkpoint", sweep="another"),
  )
  assert found == {("cifar10", "the embedded checkpoint"), ("cifar100", "the embedded checkpoint")}


def test_no_name_for_two_checkpoints_though_on_other_data(tmp_path):
  found = starts(
    tmp_path,
    labelled("cifar10", _LABEL, sha="a" * 64),
    labelled("vtab/cifar100", f"{_LABEL} itself", sha="a" * 64),
    labelled("vtab/cifar100", _LABEL, sha="b" * 64),
  )
  assert found == {
    ("cifar10", f"{_LABEL} (aaaaaaaa)"),
    ("vtab/cifar100", f"{_LABEL} itself"),
    ("vtab/cifar100", f"{_LABEL} (bbbbbbbb)"),
  }
