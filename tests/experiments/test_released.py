"""Tests of experiments.released."""

import pathlib
import shutil

import pytest

from bit_jax import weights
from bit_jax.data import datasets, vtab
from bit_jax.runtime import errors
from experiments import evaluation, released

SMALL_TASKS = ("cifar100", "svhn", "eurosat", "dsprites-xpos", "dsprites-orientation")
# BiT fact sheet, 4.4: timm's table.
TIMM = {
  "BiT-M-R50x1-ILSVRC2012": ("448 of 448, bilinear", 80.386, 95.694),
  "BiT-M-R101x1-ILSVRC2012": ("448 of 448, bilinear", 82.332, 96.524),
  "BiT-M-R50x3-ILSVRC2012": ("448 of 448, bilinear", 83.982, 97.130),
  "BiT-M-R101x3-ILSVRC2012": ("448 of 448, bilinear", 84.430, 97.380),
  "BiT-M-R152x2-ILSVRC2012": ("448 of 448, bilinear", 84.468, 97.432),
  "BiT-M-R152x4-ILSVRC2012": ("480 of 480, bilinear", 84.936, 97.456),
  "R50x1_224": ("224 of 256, bicubic", 82.820, 96.526),
  "R152x2_T_224": ("224 of 256, bicubic", 82.918, 96.568),
  "R152x2_T_384": ("384 of 384, bicubic", 83.858, 97.130),
}


def only(name):
  (check,) = released.checks(name)
  return check


def test_every_published_value_is_found():
  names = released.names()  # a row that is missing raises
  tasks = [n for n in names if released.vtab_run(n)]
  others = set(names) - set(tasks)
  assert len(tasks) == 5 * 19 * 3
  assert others == {*TIMM, "BiT-M-R50x1-CIFAR10", "R14x0.5-CIFAR100"}
  assert all(check.expected for name in others for check in released.checks(name))


def test_heads_and_data_sets_have_the_same_classes():
  for name in released.names():
    for check in released.checks(name):
      spec = datasets.find(check.dataset, "final")
      assert spec.num_classes == weights.find(name).num_classes, name


@pytest.mark.parametrize("name", TIMM)
def test_imagenet_by_the_table_of_timm(name):
  check = only(name)
  view, top1, top5 = TIMM[name]
  assert (str(check.view), check.dataset) == (view, "imagenet2012")
  assert [(e.metric, e.value) for e in check.expected] == [("top1", top1), ("top5", top5)]
  assert {e.source for e in check.expected} == {"timm results"}


def test_cifar_by_the_colabs():
  check = only("BiT-M-R50x1-CIFAR10")
  assert (str(check.view), check.dataset) == ("128 square", "cifar10")
  assert [e.value for e in check.expected] == [97.64, 97.62, 97.61]
  assert all("colab" in e.source for e in check.expected)


def test_the_embedded_checkpoint_by_its_card():
  check = only("R14x0.5-CIFAR100")
  assert (str(check.view), check.dataset) == ("48 square", "cifar100")
  assert [(e.metric, e.value) for e in check.expected] == [("top1", 44.54), ("top5", 74.83)]
  assert {e.source for e in check.expected} == {"model card R14x0.5-CIFAR100.md"}


@pytest.mark.parametrize("name", ["BiT-M-R50x1", "BiT-S-R152x4", "R152x2_T_food128", "R50x1_160"])
def test_nothing_is_published_of_others(name):
  assert released.checks(name) == []


def test_vtab_at_both_sizes_or_at_the_small_one():
  for task in vtab.TASKS:
    for architecture in ("R50x1", "R152x4"):
      found = released.checks(f"BiT-M-{architecture}-run2-{task}")
      sizes = [check.view.size for check in found]
      assert sizes == ([128] if task in SMALL_TASKS else [384, 480])
      assert all(c.dataset == f"vtab/{task}" and not c.expected for c in found)


def test_names_of_vtab_checkpoints():
  run = released.vtab_run("BiT-M-R101x3-run1-dsprites-xpos")
  assert run == ("R101x3", 1, "dsprites-xpos")
  assert released.vtab_run("BiT-M-R101x3") is None


def test_scores_that_are_published():
  assert released.vtab_score("R152x4").value == 73.51
  assert released.vtab_score("R101x3").value == 72.65
  assert released.vtab_score("R50x1") is None


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "mine.npz"
  path.touch()
  return path


def test_a_user_s_file_needs_a_data_set(file):
  with pytest.raises(errors.UserError, match="--dataset=NAME"):
    released.of_file(str(file), None, None)
  (check,) = released.of_file(str(file), "cifar10", None)
  assert check == released.Check("mine", str(file), "cifar10", evaluation.View(128))
  (check,) = released.of_file(str(file), "vtab/dtd", None)
  assert check.view.size == 480
  (check,) = released.of_file(str(file), "vtab/dtd", 99)
  assert check.view.size == 99


def test_a_run_s_config_gives_data_set_and_size(file):
  config = file.with_name("config.json")
  config.write_text('{"dataset": "digits", "test_size": 48, "data_path": null}')
  for dataset in (None, "digits"):
    (check,) = released.of_file(str(file), dataset, None)
    assert (check.dataset, check.view.size) == ("digits", 48)
  assert released.of_file(str(file), "digits", 24)[0].view.size == 24
  assert released.of_file(str(file), "cifar10", None)[0].view.size == 128
  config.write_text('{"dataset": "folder", "test_size": 48, "data_path": "photos"}')
  with pytest.raises(errors.UserError, match="--dataset=NAME"):
    released.of_file(str(file), None, None)


def test_a_card_beside_a_file_gives_the_expected_accuracy(file):
  text = (
    "| accuracy | 61.5% top-1, 90.25% top-5 on the 1,000 digits test images, resized to 24 pixels |"
  )
  file.with_suffix(".md").write_text(text)
  for dataset, size in ((None, None), ("digits", None), ("digits", 24)):
    (check,) = released.of_file(str(file), dataset, size)
    assert (check.dataset, check.view.size) == ("digits", 24)
    assert [(e.metric, e.value, e.rounding) for e in check.expected] == [
      ("top1", 61.5, pytest.approx(0.05)),
      ("top5", 90.25, pytest.approx(0.005)),
    ]
  for dataset, size in (("digits", 25), ("cifar10", None)):  # of which the card says nothing
    (check,) = released.of_file(str(file), dataset, size)
    assert check.expected == ()


def test_a_card_without_accuracy_says_nothing(file):
  file.with_suffix(".md").write_text("# A card\n")
  with pytest.raises(errors.UserError, match="--dataset=NAME"):
    released.of_file(str(file), None, None)


def test_a_file_with_a_released_name_is_evaluated_as_the_released_one(tmp_path):
  path = tmp_path / "BiT-M-R50x1-CIFAR10.npz"
  path.touch()
  (check,) = released.of_file(str(path), None, None)
  assert check.weights == str(path)
  assert check.expected == only("BiT-M-R50x1-CIFAR10").expected
  assert released.of_file(str(path), "cifar10", None) == [check]
  (other,) = released.of_file(str(path), "cifar10", 160)
  assert other.expected == ()


def test_the_embedded_file_by_its_path(tmp_path):
  source = pathlib.Path(weights.locate("R14x0.5-CIFAR100"))
  (check,) = released.of_file(str(source), "cifar100", None)
  assert [e.value for e in check.expected] == [44.54, 74.83]
  shutil.copy(source, tmp_path / "copy.npz")
  (check,) = released.of_file(str(tmp_path / "copy.npz"), "cifar100", 48)
  assert check.expected == ()


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(errors.UserError, match="doesn't exist"):
    released.of_file(str(tmp_path / "no.npz"), "cifar10", None)
