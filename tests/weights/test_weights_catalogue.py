import pytest

from bit_jax.models import architectures
from bit_jax.runtime import errors
from bit_jax.weights import catalogue


def test_counts_by_kind():
  entries = list(catalogue.CATALOGUE.values())
  assert sum(c.file.startswith("vtab/") for c in entries) == 285
  assert sum(c.name.endswith("-ILSVRC2012") for c in entries) == 6
  assert sum(c.file.startswith("distill/") for c in entries) == 8
  assert sum(c.name.count("-") == 2 and c.name.startswith("BiT-") for c in entries) == 12
  assert sum(c.name.startswith("timm/") for c in entries) == 15
  assert len(entries) == 285 + 6 + 8 + 12 + 1 + 1 + 15


@pytest.mark.parametrize(
  ("name", "num_parameters"),
  [  # in millions, as published for the converted files
    ("BiT-S-R50x1", 25.55),
    ("BiT-S-R101x1", 44.54),
    ("BiT-M-R50x3-ILSVRC2012", 217.32),
    ("BiT-M-R101x3-ILSVRC2012", 387.93),
    ("R152x2_T_224", 236.34),
    ("BiT-S-R152x4", 936.53),
  ],
)
def test_parameter_counts(name, num_parameters):
  assert round(catalogue.find(name).num_parameters / 1e6, 2) == num_parameters


@pytest.mark.parametrize(
  ("name", "architecture", "classes", "file"),
  [
    ("BiT-M-R50x1", "R50x1", 21843, "BiT-M-R50x1.npz"),
    ("BiT-M-R50x1-CIFAR10", "R50x1", 10, "BiT-M-R50x1-CIFAR10.npz"),
    (
      "BiT-M-R152x4-run2-clevr-count",
      "R152x4",
      8,
      "vtab/BiT-M-R152x4-run2-clevr-count.npz",
    ),
    ("R152x2_T_sun128", "R152x2", 397, "distill/R152x2_T_sun128.npz"),
  ],
)
def test_entries(name, architecture, classes, file):
  c = catalogue.find(name)
  assert (c.architecture, c.num_classes, c.file) == (architecture, classes, file)


def test_every_file_is_distinct_and_named_after_its_entry():
  files = {n: c.file for n, c in catalogue.CATALOGUE.items() if not c.copy_of}
  assert len(set(files.values())) == len(files)
  assert all(f.rsplit("/", 1)[-1] == f"{n}.npz" for n, f in files.items())


def test_unknown_names_are_refused_with_a_hint():
  with pytest.raises(errors.UserError, match=r"did you mean .*BiT-M-R50x1"):
    catalogue.find("BiT-M-R50x")
  with pytest.raises(errors.UserError, match="never released"):
    catalogue.find("BiT-L-R152x4")


def test_default_for_every_model_name():
  assert catalogue.default_for("R14x0.5") == "R14x0.5-CIFAR100"
  for model in architectures.MODEL_NAMES:
    if model not in architectures.SMALL:
      assert catalogue.default_for(model) == model


@pytest.mark.parametrize(("model", "other"), [("R50x1", "BiT-M-R50x1"), ("R14x1", "R14x0.5")])
def test_default_for_a_bare_architecture_asks(model, other):
  with pytest.raises(errors.UserError, match=rf"weights=none.*model={other}\."):
    catalogue.default_for(model)
