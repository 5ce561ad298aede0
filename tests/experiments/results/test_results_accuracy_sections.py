"""The sections on accuracy: what they say beside their figures."""

import errno

import pytest
import run_folders
from matplotlib.figure import Figure

from experiments.results import (
  accuracy_sections,
  curves,
  galleries,
  pages,
  recipe_comparisons,
  vtab_means,
)


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


def test_a_figure_that_cannot_be_drawn_is_left_out(tmp_path, monkeypatch, capsys):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(Figure, "savefig", fail)
  shown = few_shot(tmp_path, 1, 1)
  assert [type(block) for block in shown] == [pages.Heading, pages.Paragraph, pages.Table]
  name = "fewshot-cifar10-final.png"
  said = f"warning: {name} was not written (OSError: No space left on device).\n"
  assert capsys.readouterr().err == said


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


def test_recipes_are_compared_over_the_seeds_that_both_have(tmp_path):
  # The reference's seeds 3 and 4 are poor: medians over all seeds would make MixUp look better.
  top1s = {
    (0.0, 0.003): {0: 0.50, 1: 0.52, 2: 0.51, 3: 0.10, 4: 0.11},
    (0.1, 0.003): {0: 0.49, 1: 0.50, 2: 0.512},
    (0.0, 0.01): {2: 0.50, 7: 0.99},
    (0.0, 0.03): {7: 0.99},
  }
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots=10,seed={s}", mixup_alpha=m, base_lr=lr), top1)
    for (m, lr), values in top1s.items()
    for s, top1 in values.items()
  ]
  found = recipe_comparisons.comparisons(run_folders.written(tmp_path / "runs", *runs))
  shown = list(accuracy_sections.comparisons(found, galleries.Gallery(tmp_path)))
  (table,) = [block for block in shown if isinstance(block, pages.Table)]
  assert table.header == ("base_lr", "mixup_alpha", "top-1", "difference, same seeds")
  assert {row[:2]: row[-1] for row in table.rows} == {
    ("0.003", "0"): "reference",
    ("0.003", "0.1"): "-1.00",
    ("0.01", "0"): "-1.00, 1 of 2 seeds",
    ("0.03", "0"): "no seed in common",
  }
