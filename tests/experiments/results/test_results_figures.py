"""What the figures show, read back from matplotlib before it is drawn."""

import itertools

import matplotlib.image
import numpy as np
import pytest
import run_folders
from matplotlib.text import Text

from bit_jax.data import vtab
from experiments.results import comparisons, figures, seeds

_BLUE, _RED = "#0072B2", "#D55E00"


def medians(axes, colour):
  """Returns the large marks of a colour."""
  return [
    (line.get_xdata()[0], line.get_ydata()[0])
    for line in axes.get_lines()
    if line.get_color() == colour and line.get_markersize() == 6 and line.get_marker() != "none"
  ]


def is_picture(path):
  pixels = matplotlib.image.imread(path)
  assert 900 <= pixels.shape[1] <= 1000  # readable at its own size, on a page as wide
  return pixels


def inside(figure):
  """Whether all text of a figure lies in it."""
  figure.draw_without_rendering()
  width, height = figure.get_size_inches() * figure.dpi
  for box in (t.get_window_extent() for axes in figure.axes for t in axes.get_yticklabels()):
    if box.width and (box.x0 < -1 or box.x1 > width + 1):
      return False
  legends = [legend.get_window_extent() for legend in figure.legends]
  title = [figure._suptitle.get_window_extent()]
  return all(
    b.x0 >= -1 and b.x1 <= width + 1 and b.y0 >= -1 and b.y1 <= height + 1
    for b in (*legends, *title)
  )


def test_curves(tmp_path, saved_figures):
  runs = [
    (run_folders.reduced(f"model=R14x0.5,weights={w},seed={seed}{shots}"), top1 + seed / 100)
    for w, gain in (("none", 0.0), ("R14x0.5-CIFAR100", 0.1))
    for shots, top1 in ((",shots=1", 0.2 + gain), (",shots=25", 0.4 + gain), ("", 0.7 + gain))
    for seed in range(3)
  ]
  panels = comparisons.panels(run_folders.table(tmp_path / "runs", *runs))
  figures.few_shot(panels, "Title\nreduced rule", tmp_path / "a.png")
  is_picture(tmp_path / "a.png")
  (figure,) = saved_figures
  (axes,) = figure.axes
  assert axes.get_xscale() == "log"
  assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "25", "full\n(5,000)"]
  assert list(axes.get_xticks()) == [1, 25, 5000]
  np.testing.assert_allclose(medians(axes, _BLUE), [(1, 21), (25, 41), (5000, 71)], rtol=0.07)
  np.testing.assert_allclose(medians(axes, _RED), [(1, 31), (25, 51), (5000, 81)], rtol=0.07)
  assert [y for _, y in medians(axes, _BLUE)] == pytest.approx([21, 41, 71])
  dots = [len(line.get_xdata()) for line in axes.get_lines() if line.get_alpha()]
  assert dots == [3] * 6
  joins = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
  assert [line.get_linestyle() for line in joins] == ["-"] * 4
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == ["R14x0.5, random initialisation", "R14x0.5-CIFAR100", "one seed"]
  shown = figure.legends[0].get_lines()[:2]
  assert [line.get_color() for line in shown] == [_BLUE, _RED]
  assert shown[0].get_marker() != shown[1].get_marker()
  assert inside(figure)


def test_a_median_of_fewer_seeds_looks_otherwise(tmp_path, saved_figures):
  runs = [
    (run_folders.reduced(f"model=R14x0.5,seed={seed}{shots}"), top1)
    for shots, top1, seeds in ((",shots=1", 0.2, 3), (",shots=5", 0.3, 3), ("", 0.7, 1))
    for seed in range(seeds)
  ]
  panels = comparisons.panels(run_folders.table(tmp_path / "runs", *runs))
  figures.few_shot(panels, "Title", tmp_path / "a.png")
  (figure,) = saved_figures
  joins = [line for line in figure.axes[0].get_lines() if line.get_linestyle() != "None"]
  assert [(line.get_linestyle(), max(line.get_ydata())) for line in joins] == [
    ("-", 30),
    ("--", 70),
  ]
  hollow = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
  assert [line.get_ydata()[0] for line in hollow] == [70]
  legend = {text.get_text() for text in figure.legends[0].get_texts()}
  assert "fewer seeds than elsewhere on the line: 1" in legend
  assert inside(figure)


def test_seven_networks_with_long_names_of_several_sets(tmp_path, saved_figures):
  runs = []
  for i in range(7):
    weights = f"weights=runs/{'a_very_long_folder_name_' * 3}{i}/{'some_$checkpoint_' * 3}{i}.npz"
    for dataset in ("cifar10", "cifar100", "oxford_iiit_pet"):
      for shots in (1, 5):
        config = run_folders.config(f"model=R14x0.5,shots={shots},{weights}", dataset)
        runs.append((config, 0.1 * i))
  for number, (config, top1) in enumerate(runs):
    sha = config.weights[-5] * 64
    run_folders.write(tmp_path / "runs" / str(number), config, top1, sha=sha)
  panels = comparisons.panels(seeds.frame(run_folders.collected(tmp_path / "runs").runs))
  assert len(panels) == 3
  figures.few_shot(panels, "A title\n" + "which is long " * 20, tmp_path / "a.png")
  is_picture(tmp_path / "a.png")
  (figure,) = saved_figures
  assert inside(figure)
  shown = {(h.get_color(), h.get_marker()) for h in figure.legends[0].get_lines()}
  assert len(shown) == 8  # and that of a single seed


@pytest.mark.parametrize("tasks", [vtab.TASKS, ("dmlab",), ("svhn", "dmlab")])
def test_vtab(tmp_path, saved_figures, tasks):
  runs = [
    (run_folders.config(f"model={model},seed={seed}", f"vtab/{task}"), 0.01 * i + 0.1 * seed)
    for model in ("BiT-M-R50x1", "BiT-M-R101x1")
    for i, task in enumerate(tasks)
    for seed in range(3)
  ]
  figures.vtab(
    comparisons.scores(run_folders.table(tmp_path / "runs", *runs)), "Title", tmp_path / "a.png"
  )
  is_picture(tmp_path / "a.png")
  (figure,) = saved_figures
  (axes,) = figure.axes
  assert [t.get_text() for t in axes.get_yticklabels()] == [
    t for group in comparisons.VTAB_GROUPS.values() for t in group if t in tasks
  ]
  widths = sorted(bar.get_width() for bar in axes.patches)
  np.testing.assert_allclose(widths, np.repeat([10 + i for i in range(len(tasks))], 2))
  label = figure.legends[0].get_texts()[0].get_text()
  kind = "score" if len(tasks) == 19 else "mean of tasks run"
  value = 10 + (len(tasks) - 1) / 2
  assert label == f"BiT-M-R50x1: {kind} {value:.1f} ({len(tasks)} of 19 tasks)"
  assert inside(figure)


def test_sizes(tmp_path, saved_figures):
  runs = [
    (run_folders.config(f"model={model},shots={shots}"), 0.1 * i + shots / 100)
    for i, model in enumerate(("BiT-M-R50x1", "BiT-M-R101x1", "BiT-M-R50x3", "BiT-M-R152x2"))
    for shots in (1, 5)
  ]
  (one,) = comparisons.sizes(run_folders.table(tmp_path / "runs", *runs))
  figures.sizes(one, "time of the steps of a run on cpu", "Title", tmp_path / "a.png")
  is_picture(tmp_path / "a.png")
  (figure,) = saved_figures
  by_size, by_cost = figure.axes
  np.testing.assert_allclose(
    by_size.get_lines()[0].get_xdata(), [23.500352, 42.492480, 211.174080, 232.238208]
  )
  np.testing.assert_allclose(by_size.get_lines()[0].get_ydata(), [1, 11, 21, 31])
  np.testing.assert_allclose(by_cost.get_lines()[1].get_xdata(), [23.5] * 4)
  assert {t.get_text() for t in by_size.texts} == {"R50x1", "R101x1", "R50x3", "R152x2"}
  assert "in s" in by_cost.get_xlabel()
  assert max(by_size.get_yticks()) <= 100
  assert min(by_size.get_yticks()) >= 0
  assert inside(figure)


@pytest.mark.parametrize("longest", [2.0, 100.0, 1e6])
def test_numbers_on_the_axes_of_sizes_do_not_overlap(tmp_path, saved_figures, longest):
  models = ("BiT-M-R50x1", "BiT-M-R101x1", "BiT-M-R50x3", "BiT-M-R152x2", "BiT-M-R152x4")
  for i, model in enumerate(models):
    result = {"seconds": longest ** (i / 4)}
    config = run_folders.config(f"model={model},shots=5")
    run_folders.write(tmp_path / model, config, 0.1 * i, result=result)
  (one,) = comparisons.sizes(seeds.frame(run_folders.collected(tmp_path).runs))
  figures.sizes(one, "time", "Title", tmp_path / "a.png")
  (figure,) = saved_figures
  figure.draw_without_rendering()
  for axes in figure.axes:
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    low, high = axes.get_xlim()
    there = [
      label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high
    ]
    assert len(there) > 1
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(there))
    names = [Text.get_window_extent(text) for text in axes.texts]  # without the line to it
    assert not any(a.overlaps(b) for a, b in itertools.combinations(names, 2))


def test_recipes(tmp_path, saved_figures):
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots=10,seed={seed}", mixup_alpha=mixup), top1)
    for mixup, top1s in ((0.0, (0.4, 0.5, 0.42)), (0.1, (0.6,)))
    for seed, top1 in enumerate(top1s)
  ]
  (one,) = comparisons.recipe_comparisons(run_folders.table(tmp_path / "runs", *runs))
  figures.recipes(one, "Title", tmp_path / "a.png")
  is_picture(tmp_path / "a.png")
  (figure,) = saved_figures
  (axes,) = figure.axes
  labels = [t.get_text() for t in axes.get_yticklabels()]
  assert labels == ["reference: mixup_alpha 0", "mixup_alpha 0.1"]
  dots, stroke, other, _, line = axes.get_lines()
  np.testing.assert_allclose(dots.get_xdata(), [40, 50, 42])
  np.testing.assert_allclose(stroke.get_xdata(), [42, 42])
  np.testing.assert_allclose(other.get_xdata(), [60])
  np.testing.assert_allclose(line.get_xdata(), [42, 42])
  assert inside(figure)


@pytest.mark.parametrize(("top1", "narrow"), [(0.6151, True), (0.70, False)])
def test_the_axis_of_recipes_has_at_least_four_points(tmp_path, saved_figures, top1, narrow):
  runs = [
    (run_folders.reduced("model=R14x0.5,shots=10", mixup_alpha=mixup), value)
    for mixup, value in ((0.0, 0.6129), (0.1, top1))
  ]
  (one,) = comparisons.recipe_comparisons(run_folders.table(tmp_path / "runs", *runs))
  figures.recipes(one, "Title", tmp_path / "a.png")
  low, high = saved_figures[0].axes[0].get_xlim()
  assert low < 61.29
  assert high > 100 * top1
  assert high - low == pytest.approx(4) if narrow else high - low > 4


def test_letters_that_the_font_does_not_have_are_no_warning(tmp_path):
  names = ("权重/模型.npz", "none")
  configs = [run_folders.config(f"model=R14x0.5,shots=10,weights={w}") for w in names]
  panels = comparisons.panels(run_folders.table(tmp_path / "runs", *((c, 0.5) for c in configs)))
  figures.few_shot(panels, "标题", tmp_path / "a.png")
  is_picture(tmp_path / "a.png")


def test_names_that_matplotlib_would_read_as_something_else(tmp_path, saved_figures):
  names = ("_start", "$5_or_$6", "$")
  for shots in (1, 5):
    for i, name in enumerate(names):
      config = run_folders.config(f"model=R14x0.5,shots={shots},weights={name}")
      sha = f"{i}" * 64
      folder = tmp_path / "runs" / f"{i}-{shots}"
      run_folders.write(folder, config, 0.1, sha=sha, sweep="s", start=name)
  found = run_folders.collected(tmp_path / "runs").runs
  assert {run.start for run in found} == set(names)
  figures.few_shot(comparisons.panels(seeds.frame(found)), "$a_b$ _t", tmp_path / "a.png")
  (one,) = comparisons.sizes(
    run_folders.table(
      tmp_path / "sizes",
      *((run_folders.config(f"model=BiT-M-{m},shots=5"), 0.5) for m in ("R50x1", "R101x1")),
    )
  )
  figures.sizes(one, "$time_$ on _", "$", tmp_path / "b.png")
  legend = {text.get_text() for text in saved_figures[0].legends[0].get_texts()}
  assert {name for name in names if any(name in text for text in legend)} == set(names)
  assert not any(t.get_parse_math() for figure in saved_figures for t in figure.findobj(Text))
