"""Writes `bit_jax/weights/assets/class_names.json`: the classes of released checkpoints.

    python -m experiments.class_names TIMM TFDS_DATA_DIR

TIMM is the folder of an installed or unpacked timm: its `data/_info` lists the WordNet synsets of
ImageNet's classes in the order of the heads, and their lemmas. TFDS_DATA_DIR holds CIFAR-10 and
CIFAR-100 as tensorflow-datasets prepares them; it gives the other names without their data.
"""

import json
import pathlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from bit_jax.data import vtab
from bit_jax.data.sources import tfds_builders
from bit_jax.weights import classes

ASSET = pathlib.Path(__file__).parents[1] / "bit_jax" / "weights" / "assets" / "class_names.json"
_SYNSETS = {"imagenet1k": "imagenet_synsets.txt", "imagenet21k": "imagenet21k_goog_synsets.txt"}
_OTHERS = {"cifar10": "cifar10", "food101": "food101"}  # not of VTAB


def main(timm: str, data_dir: str) -> None:
  """Writes the asset."""
  info = pathlib.Path(timm) / "data" / "_info"
  rows = (info / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
  lemmas = dict(row.split("\t") for row in rows)
  synsets = {name: (info / f).read_text(encoding="utf-8").split() for name, f in _SYNSETS.items()}
  names = {name: unique(of_set, lemmas) for name, of_set in synsets.items()}
  names[classes.SYNSETS] = synsets["imagenet1k"]
  tasks = {t.name: t.tfds_name for t in map(vtab.find, vtab.TASKS) if t.class_names is None}
  for name, tfds_name in sorted((_OTHERS | tasks).items()):
    assert tfds_name
    builder = tfds_builders.find_current(tfds_name, data_dir)
    names[name] = list(builder.info.features["label"].names)
  ASSET.write_text(json.dumps(names, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def unique(synsets: Sequence[str], lemmas: dict[str, str]) -> list[str]:
  """Returns a different name for each synset.

  It is the first lemma ('tench'). Where synsets of the set share that, in upper or lower case, it
  is the first two lemmas ('maillot, tank suit'), and where they share those as well, the first
  lemma and the synset ('crane (n02012849)').

  Args:
    synsets: WordNet synsets, such as 'n02012849'.
    lemmas: Comma-separated lemmas of each synset.
  """
  words = {s: lemmas[s].split(", ") for s in synsets}
  forms: tuple[Callable[[str], str], ...] = (
    lambda s: words[s][0],
    lambda s: ", ".join(words[s][:2]),
  )
  names: dict[str, str] = {}
  for form in forms:
    counts = Counter(form(s).casefold() for s in synsets)
    names = {s: form(s) for s in synsets if counts[form(s).casefold()] == 1} | names
  return [names.get(s, f"{words[s][0]} ({s})") for s in synsets]


if __name__ == "__main__":
  main(*sys.argv[1:])
