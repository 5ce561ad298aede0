"""Figures: the user's text as it is, and nothing of the user's style."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib import image as mpl_image
from matplotlib.text import Text

from bit_jax.runtime import plots

NAMES = (
  "price_$5_to_$9",
  "$",
  "$$",
  r"\frac{",
  "%d {x}",
  "_a",
  "__init__",
  "猫",
  "\U0001f468",
  "<b>",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_drawn_stays_as_it_is(name):
  assert plots.line(name) == plots.cut(name, 40) == plots.wrapped(name, 40, 2) == name


@pytest.mark.parametrize(
  ("name", "shown"),
  [
    ("a\nb\t c\u3000", "a b c"),
    ("r\udce9sum\udce9", r"r\udce9sum\udce9"),  # a file name that isn't UTF-8
    ("\ud83d", r"\ud83d"),
    ("\x1b[31m\x00", r"\x1b[31m\x00"),
    ("a\u200db\u202ec", "abc"),
    ("", ""),
  ],
)
def test_what_cannot_be_drawn_is_escaped(name, shown):
  assert plots.line(name) == shown


def test_long_text_is_cut_and_wrapped():
  assert plots.cut("x" * 30, 10) == "x" * 9 + "…"
  assert plots.cut("猫" * 30, 10) == "猫" * 4 + "…"
  assert plots.wrapped("one two three four\nfive", 8, 2) == "one two\nthree …\nfive"
  assert plots.wrapped("猫" * 8, 8, 2) == "猫" * 4 + "\n" + "猫" * 4


def test_no_text_of_a_figure_is_mathematics_and_no_label_is_left_out(tmp_path, saved_figures):
  with plots.figure(tmp_path / "a.png", (6, 6), dpi=50) as figure:
    axes = figure.subplots()
    lines = [axes.plot([1, 1000], [i, i])[0] for i in range(len(NAMES))]
    axes.set_yticks(range(len(NAMES)), NAMES)
    axes.set_title(NAMES[0])
    axes.set_xlabel(NAMES[0])
    axes.annotate(NAMES[0], (1, 1))
    plots.set_log_scale(axes, "x", (1,))
    plots.legend(figure, lines, NAMES, loc="outside lower center")
    figure.suptitle(NAMES[0])
  (saved,) = saved_figures
  assert not any(text.get_parse_math() for text in saved.findobj(Text))
  assert [text.get_text() for text in saved.legends[0].get_texts()] == list(NAMES)
  assert [text.get_text() for text in axes.get_yticklabels()] == list(NAMES)
  numbers = [text.get_text() for text in axes.get_xticklabels()]
  assert {"1", "10", "100", "1,000"} <= set(numbers)
  assert not any("$" in number for number in numbers)


def test_the_style_of_the_user_has_no_influence_and_stays(tmp_path):
  own = {"text.usetex": True, "savefig.bbox": "tight", "font.size": 50, "savefig.dpi": 7}
  backend = mpl.rcParams._get("backend")
  for name, style in (("a", {}), ("b", own)):
    with mpl.rc_context(style):
      with plots.figure(tmp_path / f"{name}.png", (3, 2), dpi=50) as figure:
        figure.subplots().set_title("title")
      assert {k: mpl.rcParams[k] for k in style} == style
  assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
  assert mpl_image.imread(tmp_path / "a.png").shape[:2] == (100, 150)
  assert mpl.rcParams._get("backend") == backend


def test_a_figure_that_fails_leaves_the_one_before(tmp_path):
  picture = tmp_path / "a.png"
  picture.write_bytes(b"before")
  with pytest.raises(ZeroDivisionError), plots.figure(picture, (1, 1), dpi=50):
    1 / 0  # noqa: B018
  assert picture.read_bytes() == b"before"
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_installed_fonts_are_found_for_letters():
  letters = frozenset("жΩ∬")
  families = plots._families(letters)
  faces = [font_manager.get_font(font_manager.findfont(name)) for name in families]
  for letter in letters:
    assert any(face.get_char_index(ord(letter)) for face in faces)
  assert plots._families(frozenset("\U0010ffff")) == ()


def test_a_text_gets_the_font_that_has_its_letters(tmp_path, saved_figures, monkeypatch):
  monkeypatch.setattr(plots, "_FONT", "STIXSizeOneSym")  # has no letters
  with plots.figure(tmp_path / "a.png", (2, 2), dpi=50) as figure:
    figure.suptitle("ж")
  assert saved_figures[0]._suptitle.get_fontfamily() == [
    "STIXSizeOneSym",
    *plots._families(frozenset("ж")),
  ]


@pytest.mark.parametrize("as_float", [False, True])
def test_a_sheet_shows_every_image_with_its_caption(tmp_path, saved_figures, as_float):
  colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
  images = np.repeat(colours[:, None, None], 4, 1).repeat(4, 2)
  if as_float:
    images = images.astype(np.float32) / 127.5 - 1
  plots.sheet(images, ["one", "!two", "three"], tmp_path / "s.png", "title", columns=2)
  pixels = mpl_image.imread(tmp_path / "s.png")[..., :3]
  for colour in colours / 255:
    assert np.all(pixels == colour, axis=2).sum() > 10_000
  axes = saved_figures[0].axes
  assert [a.get_title() for a in axes] == ["one", "two", "three", ""]
  assert [a.title.get_color() for a in axes[:3]] == ["black", plots.ORANGE, "black"]


def test_values_out_of_range_are_clipped(tmp_path, saved_figures):
  images = np.full((1, 2, 2, 3), 1.001, np.float32)
  plots.sheet(images, ["a"], tmp_path / "s.png", "")
  assert saved_figures[0].axes[0].images[0].get_array().max() == 1.0


def test_captions_do_not_overlap_whatever_they_hold(tmp_path, saved_figures):
  names = [
    "!aquarium_fish (sweet_pepper)",
    "a$_1 and b$",
    "WARNING M/W " * 4,
    "many words " * 9,
    "",
  ] * 4
  plots.sheet(np.zeros((20, 8, 8, 3), np.uint8), names, tmp_path / "s.png", "title")
  figure = saved_figures[0]
  figure.canvas.draw()
  boxes = [a.title.get_window_extent() for a in figure.axes if a.get_title()]
  assert len(boxes) == 16
  for i, a in enumerate(boxes):
    assert not any(a.overlaps(b) for b in boxes[:i])
    assert figure.bbox.x0 <= a.x0 <= a.x1 <= figure.bbox.x1
