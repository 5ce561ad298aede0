"""The sections on accuracy: what they say beside their figures."""

import pytest
import run_folders
from matplotlib.figure import Figure

from experiments.results import accuracy_sections, curves, galleries, pages, vtab_means


@pytest.fixture(autouse=True)
def _without_drawing(monkeypatch):
  monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: path.write_bytes(b""))


def few_shot(folder, *seeds):
  """Returns the section of 1, 5, ... examples of each class, with as many seeds as are given."""
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots={shots},seed={seed}"), 0.5)
    for shots, count in zip((1, 5, 10), seeds, strict=False)
    for seed in range(count)
  ]
  panels = curves.panels(run_folders.written(folder / "runs", *runs))
  return list(accuracy_sections.few_shot(panels, galleries.Gallery(folder)))


@pytest.mark.parametrize(("seeds", "said"), [((2, 2), False), ((1, 1), False), ((2, 2, 1), True)])
def test_a_caption_tells_of_hollow_marks_where_there_are_some(tmp_path, seeds, said):
  (picture,) = [b for b in few_shot(tmp_path, *seeds) if isinstance(b, pages.Picture)]
  assert ("hollow and dashed where there are fewer seeds" in picture.text) == said
  assert (tmp_path / picture.file).exists()


def test_every_recipe_and_protocol_has_a_figure_of_its_own(tmp_path):
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots={shots},{more}", **fields), 0.5)
    for shots in (1, 5)
    for more, fields in (("seed=0", {}), ("protocol=select", {}), ("seed=0", {"base_lr": 0.01}))
  ]
  panels = curves.panels(run_folders.written(tmp_path / "runs", *runs))
  shown = list(accuracy_sections.few_shot(panels, galleries.Gallery(tmp_path)))
  files = [block.file for block in shown if isinstance(block, pages.Picture)]
  assert len(files) == len(set(files)) == 3


def test_means_of_seeds_are_told_where_there_are_several(tmp_path):
  runs = [
    (run_folders.config(f"model=R14x0.5,seed={seed}{more}", "vtab/svhn"), 0.5 + seed / 100)
    for more, seeds in (("", 3), (",weights=none", 1))
    for seed in range(seeds)
  ]
  scores = vtab_means.scores(run_folders.written(tmp_path / "runs", *runs))
  shown = list(accuracy_sections.vtab_scores(scores, galleries.Gallery(tmp_path)))
  means, tasks = [block for block in shown if isinstance(block, pages.Table)]
  assert [(row[0], *row[-2:]) for row in means.rows] == [
    ("R14x0.5, random initialisation", "50.0 (1 of 19)", ""),
    ("R14x0.5-CIFAR100", "51.0 (1 of 19)", "50.0 to 52.0, 3 seeds"),
  ]
  assert tasks.rows == [("svhn", "natural", "50.0, 1 seed", "51.0 (50.0 to 52.0), 3 seeds")]
