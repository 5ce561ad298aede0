"""Class names of released heads: their number, order and form, and which files have them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax import weights
from bit_jax.data.sources import class_naming
from bit_jax.weights import catalogue, classes
from experiments import class_names as writing


def of(name):
  return weights.class_names(name, catalogue.find(name).num_classes)


@pytest.mark.parametrize("labels", sorted({c.labels for c in catalogue.CATALOGUE.values()}))
def test_every_data_set_has_usable_names(labels):
  checkpoint = next(c for c in catalogue.CATALOGUE.values() if c.labels == labels)
  names = of(checkpoint.name)
  assert len(names) == checkpoint.num_classes
  assert class_naming.fault(names) is None
  assert class_naming.differ_in_case(names) is None
  assert names != classes.unnamed(len(names))


def test_checkpoints_of_one_data_set_have_the_same_names():
  sizes = {(c.labels, c.num_classes) for c in catalogue.CATALOGUE.values()}
  assert len(sizes) == len({labels for labels, _ in sizes})


# Indices as the community knows them, from ILSVRC-2012 in the order of synsets.
@pytest.mark.parametrize(
  ("label", "name"),
  [
    (0, "tench"),
    (134, "crane (n02012849)"),
    (207, "golden retriever"),
    (281, "tabby"),
    (517, "crane (n03126707)"),
    (638, "maillot"),
    (639, "maillot, tank suit"),
    (999, "toilet tissue"),
  ],
)
def test_imagenet_1k(label, name):
  for checkpoint in ("BiT-S-R50x1", "BiT-M-R152x4-ILSVRC2012", "R50x1_224"):
    assert of(checkpoint)[label] == name


def test_imagenet_21k():
  names = of("BiT-M-R50x1")
  assert names[:3] == ("organism", "benthos", "heterotroph")
  golden = names.index("golden retriever")
  # Synsets of one family follow each other, as in the hierarchy.
  assert names[golden - 2 : golden + 2] == (
    "flat-coated retriever",
    "curly-coated retriever",
    "golden retriever",
    "Labrador retriever",
  )


def test_the_embedded_checkpoint_agrees_with_its_card():
  card = (weights.locate(catalogue.EMBEDDED).with_suffix(".md")).read_text(encoding="utf-8")
  stated = re.search(r"Classes, in the order of the head: (.*)\.$", card, re.MULTILINE)[1]
  assert of(catalogue.EMBEDDED) == tuple(stated.split(", "))


def test_cifar10_and_vtab():
  assert of("BiT-M-R50x1-CIFAR10")[:4] == ("airplane", "automobile", "bird", "cat")
  assert of("BiT-M-R50x1-run0-clevr-count")[0] == "3 objects"
  assert of("BiT-M-R50x1-run0-svhn") == tuple("0123456789")
  assert of("R152x2_T_flowers128")[:2] == ("pink primrose", "hard-leaved pocket orchid")
  assert of("R152x2_T_pet128")[36] == "yorkshire_terrier"


@pytest.mark.parametrize("reference", ["mine.npz", "runs/x/model.npz", "BiT-M-R50x1.npz"])
def test_an_unknown_file_has_names_only_where_its_length_tells_them(reference):
  assert weights.class_names(reference, 3) == ("class 0", "class 1", "class 2")
  assert weights.class_names(reference, 1000)[7] == "class 7"
  assert weights.class_names(reference, 21843) == of("BiT-M-R50x1")


def test_a_file_called_like_a_checkpoint(tmp_path):
  assert weights.class_names(tmp_path / "R50x1_224.npz", 1000) == of("R50x1_224")


def test_classes_of_imagenet_go_by_their_synsets_too():
  others = classes.other_names(of("BiT-S-R50x1"))
  assert len(others) == 1000
  assert [others[s] for s in ("n01440764", "n02012849", "n03126707", "n15075141")] == [
    0,
    134,
    517,
    999,
  ]
  assert list(others) == sorted(others)


def test_unknown_classes_go_by_their_numbers():
  assert classes.other_names(classes.unnamed(3)) == {"0": 0, "1": 1, "2": 2}
  assert classes.other_names(("cat", "dog")) == {}


LEMMAS = {
  "n1": "crane",
  "n2": "crane",
  "n3": "kite",
  "n4": "Kite, hawk",
  "n5": "tench, Tinca, fish",
}


def test_writing_distinguishes_shared_lemmas():
  names = writing.unique(["n1", "n2", "n3", "n4", "n5"], LEMMAS)
  assert names == ["crane (n1)", "crane (n2)", "kite", "Kite, hawk", "tench"]
  assert writing.unique(["n4", "n2"], LEMMAS) == ["Kite", "crane"]


@given(st.lists(st.lists(st.sampled_from("abAB"), min_size=1, max_size=3), max_size=12))
def test_written_names_always_differ(words):
  lemmas = {f"n{i}": ", ".join(w) for i, w in enumerate(words)}
  names = writing.unique(list(lemmas), lemmas)
  assert len({n.casefold() for n in names}) == len(words)
