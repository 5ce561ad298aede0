"""Figures as PNG files that look alike on every machine, with any text drawn as it is.

Names of classes, files and data sets are the user's: they may hold dollar signs, which are no
mathematics here, and letters that the font lacks.
"""

import contextlib
import functools
import pathlib
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bit_jax.runtime import files, matplotlib_import

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_STYLE = {
  "text.parse_math": False,
  "axes.formatter.useoffset": False,
}
_FONT = "DejaVu Sans"  # comes with matplotlib
_NO_FONT = "Last Resort"  # matplotlib's font of boxes, beginning of its name
_ESCAPED = ("Cc", "Cs")  # Unicode categories: control characters; bytes that are not UTF-8


@contextlib.contextmanager
def figure(picture: pathlib.Path, size: tuple[float, float], dpi: int) -> Iterator["Figure"]:
  """Yields an empty figure, which is saved when the block ends.

  The user's own style and backend have no influence, and stay as they are.

  Args:
    picture: The PNG file to write.
    size: (width, height) in inches.
    dpi: Pixels per inch.

  Raises:
    ImportError: matplotlib can't be imported.
  """
  matplotlib_import.matplotlib()
  with matplotlib_import.quiet(), warnings.catch_warnings():
    for message in ("Glyph .* missing from", "Matplotlib currently does not support"):
      warnings.filterwarnings("ignore", message=message)
    from matplotlib import style
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
      drawn = Figure(figsize=size, layout="constrained")
      backend_agg.FigureCanvasAgg(drawn)
      yield drawn
      _choose_fonts(drawn)
      with files.replacing(picture) as temporary:
        drawn.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def line(text: str) -> str:
  """Returns any text as one line that can be drawn: control characters are escaped."""
  return "".join(map(_drawn, " ".join(text.split())))


def cut(text: str, width: int) -> str:
  """Returns any text as one line of at most `width` letters, fewer where they are wide."""
  shown, width = line(text), _letters(text, width)
  return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def wrapped(text: str, width: int, lines: int) -> str:
  """Returns any text with each of its lines wrapped.

  Args:
    text: What to wrap.
    width: Letters in a line, fewer where they are wide.
    lines: What a line may become at most; the rest is cut.
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
  made = where.legend(handles=handles, labels=[str(i) for i in range(len(labels))], **options)
  for text, label in zip(made.get_texts(), labels, strict=True):
    text.set_text(label)


def set_log_scale(axes: "Axes", side: str, subs: Sequence[float]) -> None:
  """Makes an axis logarithmic, with plain numbers.

  Args:
    axes: The axes.
    side: 'x' or 'y'.
    subs: What the powers of ten are multiplied with to get the numbers that are shown.
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
  """Gives texts with letters that the usual font lacks the installed fonts that have them."""
  from matplotlib import font_manager
  from matplotlib.text import Text

  for axes in figure.axes:  # their texts are made when they are asked for
    axes.get_xticklabels()
    axes.get_yticklabels()
  usual = font_manager.get_font(font_manager.findfont(_FONT))
  missing = {
    text: letters
    for text in figure.findobj(Text)
    if (letters := {c for c in text.get_text() if c > " " and not usual.get_char_index(ord(c))})
  }
  families = _families(frozenset().union(*missing.values())) if missing else ()
  for text in missing:
    text.set_fontfamily([_FONT, *families])


@functools.lru_cache(maxsize=16)
def _families(letters: frozenset[str]) -> tuple[str, ...]:
  """Returns installed fonts that together have as many of some letters as any have."""
  from matplotlib import font_manager

  families: dict[str, None] = {}
  for font in font_manager.fontManager.ttflist:
    if not letters:
      break
    if font.name.startswith(_NO_FONT):
      continue
    try:
      face = font_manager.get_font(font.fname)
    except (OSError, RuntimeError):  # removed since, or of an unknown format
      continue
    if there := {c for c in letters if face.get_char_index(ord(c))}:
      families[font.name] = None
      letters -= there
  return tuple(families)
