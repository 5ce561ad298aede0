"""One structure of headings, paragraphs, tables and figures, written as Markdown and as HTML."""

import base64
import dataclasses
import html
import pathlib
import re
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Heading:
  """A heading; level 1 is the title."""

  level: int
  text: str


@dataclasses.dataclass(frozen=True)
class Paragraph:
  """Running text."""

  text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
  """A list."""

  items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; the columns after the first `names` are set to the right."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  names: int = 1


@dataclasses.dataclass(frozen=True)
class Picture:
  """A PNG file beside the page; `text` says what it shows."""

  file: str
  text: str


Block = Heading | Paragraph | Bullets | Table | Picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 1010px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; }
.wide { overflow-x: auto; }
th, td { border-bottom: 1px solid #ccc; padding: 3px 12px 3px 0; text-align: right;
         vertical-align: top; font-variant-numeric: tabular-nums; }
th.name, td.name { text-align: left; overflow-wrap: anywhere; }
figure { margin: 1.5em 0; } img { max-width: 100%; }
figcaption { font-size: 14px; color: #444; }
""".strip()


def markdown(blocks: Iterable[Block]) -> str:
  """Returns the blocks as GitHub's Markdown; pictures are linked as files beside it."""
  return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def html_page(blocks: Sequence[Block], folder: pathlib.Path) -> str:
  """Returns the blocks as one HTML file that needs no other.

  Args:
    blocks: The page; its first heading is its title.
    folder: Where its pictures lie.
  """
  title = next((b.text for b in blocks if isinstance(b, Heading)), "")
  body = "\n".join(_html(block, folder) for block in blocks)
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width">\n'
    f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
    f"<body>\n{body}\n</body>\n</html>\n"
  )


def _markdown(block: Block) -> str:
  match block:
    case Heading(level, text):
      return f"{'#' * level} {_escape(text)}"
    case Paragraph(text):
      return _escape_start(_escape(text))
    case Bullets(items):
      return "\n".join(f"- {_escape_start(_escape(item))}" for item in items)
    case Picture(file, text):
      return f"![{_escape(text)}]({file})"
    case Table(header, rows, names):
      marks = ["---"] * names + ["---:"] * (len(header) - names)
      lines = [map(_cell, header), marks, *(map(_cell, row) for row in rows)]
      return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
  """Keeps foreign text from being taken for markup, and leaves names with underscores readable."""
  text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
  text = re.sub(r"([\\`*\[\]~$])", r"\\\1", text.replace("<", "&lt;"))
  return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _escape_start(text: str) -> str:
  return re.sub(r"^(\d*)([#>+.)=-])", r"\1\\\2", text)


def _cell(text: str) -> str:
  return _escape(text).replace("|", r"\|")


def _html(block: Block, folder: pathlib.Path) -> str:
  match block:
    case Heading(level, text):
      return f"<h{level}>{html.escape(text)}</h{level}>"
    case Paragraph(text):
      return f"<p>{html.escape(text)}</p>"
    case Bullets(items):
      return "<ul>\n" + "\n".join(f"<li>{html.escape(i)}</li>" for i in items) + "\n</ul>"
    case Picture(file, text):
      data = base64.b64encode((folder / file).read_bytes()).decode()
      shown = html.escape(text)
      return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{shown}">'
        f"<figcaption>{shown}</figcaption></figure>"
      )
    case Table(header, rows, names):
      head = _html_row("th", header, names)
      body = "\n".join(_html_row("td", row, names) for row in rows)
      return (
        f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
      )


def _html_row(tag: str, cells: Sequence[str], names: int) -> str:
  opening = [f'<{tag} class="name">' if i < names else f"<{tag}>" for i in range(len(cells))]
  shown = [f"{o}{html.escape(c)}</{tag}>" for o, c in zip(opening, cells, strict=True)]
  return f"<tr>{''.join(shown)}</tr>"
