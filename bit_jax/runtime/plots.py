"""Figures as PNG files that look alike on every machine and draw any text literally.

Names of classes, files and data sets come from users: dollar signs in them are not mathematics, and
the font may lack their characters.
"""

import contextlib
import functools
import json
import pathlib
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_jax.runtime import files, imports

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Colours of Okabe and Ito, distinguishable with any colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
_STYLE = {"text.parse_math": False, "axes.formatter.useoffset": False}
_FONT = "DejaVu Sans"  # comes with matplotlib
_NO_FONT = "Last Resort"  # matplotlib's font of boxes, beginning of its name
_PER_INCH = 10  # characters of a title
_TITLE_SIZE, _TITLE_LINES = 11, 3  # points; lines that a line of a title may become
_CAPTION_WIDTH = 18  # characters that fit above an image of a sheet
_LEAST_WIDTH = 6.0  # inches that a sheet's title needs
_CAPTION_KEPT = 200  # characters of a caption that are kept beside the picture
TILES = "Tiles"  # key of a PNG file's text that says where the images of a sheet are
_ESCAPED = ("Cc", "Cs")  # Unicode categories: control characters; bytes that are not UTF-8


@contextlib.contextmanager
def figure(
  picture: pathlib.Path,
  size: tuple[float, float],
  dpi: int,
  describe: Callable[["Figure"], Mapping[str, str]] | None = None,
) -> Iterator["Figure"]:
  """Yields an empty figure, which is saved when the block ends.

  The user's own style and backend have no influence, and stay as they are.

  Args:
    picture: The PNG file to write.
    size: (width, height) in inches.
    dpi: Pixels per inch.
    describe: Returns, for the figure as it is laid out, texts by key that go into the file.

  Raises:
    ImportError: matplotlib can't be imported.
  """
  imports.matplotlib()
  with imports.quiet_matplotlib(), warnings.catch_warnings():
    for message in ("Glyph .* missing from", "Matplotlib currently does not support"):
      warnings.filterwarnings("ignore", message=message)
    from matplotlib import style
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
      drawn = Figure(figsize=size, dpi=dpi, layout="constrained")
      backend_agg.FigureCanvasAgg(drawn)
      yield drawn
      _choose_fonts(drawn)
      texts: dict[str, str | None] = {"Software": None}
      if describe is not None:
        if (engine := drawn.get_layout_engine()) is not None:
          engine.execute(drawn)
        drawn.set_layout_engine("none")  # it is laid out
        texts.update(describe(drawn))
      with files.replacing(picture) as temporary:
        drawn.savefig(temporary, format="png", dpi=dpi, metadata=texts)


def sheet(
  images: Sequence[np.ndarray] | np.ndarray,
  captions: Sequence[str],
  picture: pathlib.Path,
  title: str,
  columns: int = 8,
) -> None:
  """Draws a contact sheet: images in rows with a caption above each.

  The file also says where each image is (`TILES`): a JSON list with an object for each, of its
  'box' (left, top, right, bottom in pixels) and its whole 'caption'.

  Args:
    images: N images, [H, W, 3], uint8 or float32 in [-1, 1], whose sizes may differ.
    captions: N texts; one that starts with '!' is drawn in the colour of a mistake, without the
      '!'. A text of one line is wrapped to two, each line of another is cut to fit.
    picture: The PNG file to write.
    title: Above the picture.
    columns: Images in a row.

  Raises:
    ImportError: matplotlib can't be imported.
  """
  rows = -(-len(images) // columns)
  width = max(1.5 * columns, _LEAST_WIDTH)
  title_lines = len(_wrapped_title(title, width).splitlines())

  def tiles(laid_out: "Figure") -> Mapping[str, str]:
    size = laid_out.get_size_inches() * laid_out.dpi
    found = [
      {"box": _pixels(axes, size), "caption": line(caption)[:_CAPTION_KEPT]}
      for axes, caption in zip(laid_out.axes, captions, strict=False)
    ]
    return {TILES: json.dumps(found)}

  size = (width, 1.75 * rows + 0.2 + 0.2 * title_lines)
  with figure(picture, size, dpi=110, describe=tiles) as drawn:
    for axes in drawn.subplots(rows, columns, squeeze=False).flat:
      axes.set_axis_off()
      for axis in (axes.xaxis, axes.yaxis):
        axis.set_visible(False)  # else the layout measures the ticks that are not drawn
    for axes, image, caption in zip(drawn.axes, images, captions, strict=False):
      axes.imshow(image if image.dtype == np.uint8 else np.clip((image + 1) / 2, 0, 1))
      colour = ORANGE if caption.startswith("!") else "black"
      axes.set_title(_fitted(caption.removeprefix("!")), fontsize=9, color=colour)
    set_title(drawn, title)


def _fitted(caption: str) -> str:
  """Returns a caption in at most two lines if it is one, and with as many as it has otherwise."""
  if "\n" not in caption:
    return wrapped(caption, _CAPTION_WIDTH, lines=2)
  return "\n".join(cut(part, _CAPTION_WIDTH) for part in caption.split("\n"))


def _pixels(axes: "Axes", size: np.ndarray) -> list[int]:
  """Returns (left, top, right, bottom) of axes in a figure of a (width, height) in pixels."""
  (left, low), (right, high) = axes.get_position().get_points() * size
  return [round(left), round(size[1] - high), round(right), round(size[1] - low)]


def set_title(figure: "Figure", title: str) -> None:
  """Sets a figure's title, wrapped to its width."""
  figure.suptitle(_wrapped_title(title, figure.get_figwidth()), fontsize=_TITLE_SIZE)


def _wrapped_title(title: str, inches: float) -> str:
  return wrapped(title, int(inches * _PER_INCH), _TITLE_LINES)


def line(text: str) -> str:
  """Returns any text as one line that can be drawn, with control characters escaped."""
  return "".join(map(_drawn, " ".join(text.split())))


def cut(text: str, width: int) -> str:
  """Returns any text as one line of at most `width` letters, fewer where they are wide."""
  shown, width = line(text), _letters(text, width)
  return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def wrapped(text: str, width: int, lines: int) -> str:
  """Returns any text with each of its lines wrapped.

  Args:
    text: The text to wrap.
    width: Letters in a line, fewer where they are wide.
    lines: The most lines that one line of the text may become; the rest is cut.
  """
  parts = [
    part
    for one in text.splitlines()
    for part in textwrap.wrap(line(one), _letters(one, width), max_lines=lines, placeholder=" …")
  ]
  return "\n".join(parts)


def legend(where: Any, handles: Sequence[Any], labels: Sequence[str], **options: Any) -> None:
  """Adds a legend to a figure or to axes, with labels of any text.

  Args:
    where: The figure or axes.
    handles: N artists.
    labels: N texts.
    **options: Of `matplotlib.legend.Legend`.
  """
  # matplotlib leaves out labels that begin with an underscore, so they are set afterwards.
  drawn = where.legend(handles=handles, labels=[str(i) for i in range(len(labels))], **options)
  for text, label in zip(drawn.get_texts(), labels, strict=True):
    text.set_text(label)


def set_log_scale(axes: "Axes", side: str, subs: Sequence[float]) -> None:
  """Makes an axis logarithmic, with plain numbers.

  Args:
    axes: The axes.
    side: 'x' or 'y'.
    subs: Factors of the powers of ten at which numbers are shown.
  """
  from matplotlib import ticker

  axes.set(**{f"{side}scale": "log"})
  axis = getattr(axes, f"{side}axis")
  axis.set_major_locator(ticker.LogLocator(subs=subs, numticks=6))
  axis.set_major_formatter(lambda v, _: f"{v:,.0f}" if v >= 100 else f"{v:g}")
  axis.set_minor_formatter(ticker.NullFormatter())


def _letters(text: str, width: int) -> int:
  """Returns how many letters of a text fit where `width` usual ones do."""
  if any(unicodedata.east_asian_width(c) in "WF" for c in text):
    return width // 2
  return width * 2 // 3 if text.isupper() else width


def _drawn(character: str) -> str:
  category = unicodedata.category(character)
  if category in _ESCAPED:
    return character.encode("unicode_escape").decode()
  return "" if category == "Cf" else character  # joiners and marks of direction have no shape


def _choose_fonts(figure: "Figure") -> None:
  """Sets installed fonts for the texts with letters that the usual font lacks."""
  from matplotlib import font_manager
  from matplotlib.text import Text

  for axes in figure.axes:  # matplotlib creates their texts on demand
    axes.get_xticklabels()
    axes.get_yticklabels()
  usual = font_manager.get_font(font_manager.findfont(_FONT))
  texts = figure.findobj(Text)
  letters = {c for text in texts for c in text.get_text() if c > " "}
  if missing := frozenset(c for c in letters if not usual.get_char_index(ord(c))):
    for text in texts:
      text.set_fontfamily([_FONT, *_families(missing)])


@functools.lru_cache(maxsize=16)
def _families(letters: frozenset[str]) -> tuple[str, ...]:
  """Returns installed fonts that together have all of some letters that any font has."""
  from matplotlib import font_manager

  families: dict[str, None] = {}
  for font in font_manager.fontManager.ttflist:
    if not letters:
      break
    if font.name.startswith(_NO_FONT):
      continue
    try:
      face = font_manager.get_font(font.fname)
    except (OSError, RuntimeError):  # deleted since, or of an unknown format
      continue
    if there := {c for c in letters if face.get_char_index(ord(c))}:
      families[font.name] = None
      letters -= there
  return tuple(families)
