"""The same blocks as Markdown and as HTML; foreign text is text in both."""

import base64
import html.parser

import pytest

from experiments.results import pages

NASTY = 'a|b <script>alert("1")</script> *x* _y_ [z](u) `q` & &amp; \\ $5 to $9 oxford_iiit_pet'


def test_markdown():
  blocks = [
    pages.Heading(2, "Title"),
    pages.Paragraph("Some\ntext."),
    pages.Bullets(["one", "- two"]),
    pages.Table(("name", "x"), [("a|b", "1"), ("c", "2")]),
    pages.Picture("a.png", "what it shows"),
  ]
  assert pages.markdown(blocks) == (
    "## Title\n\nSome text.\n\n- one\n- \\- two\n\n"
    "| name | x |\n| --- | ---: |\n| a\\|b | 1 |\n| c | 2 |\n\n![what it shows](a.png)\n"
  )


def test_foreign_text_is_no_markup():
  assert pages.markdown([pages.Paragraph(NASTY)]) == (
    'a|b &lt;script>alert("1")&lt;/script> \\*x\\* \\_y\\_ \\[z\\](u) \\`q\\` & &amp;amp; \\\\ '
    "\\$5 to \\$9 oxford_iiit_pet\n"
  )


@pytest.mark.parametrize("text", ["# x", "> x", "- x", "+ x", "1. x", "12) x", "=== x"])
def test_the_beginning_of_foreign_text_is_none_either(text):
  mark = next(c for c in text if not c.isdigit())
  assert pages.markdown([pages.Paragraph(text)]) == text.replace(mark, f"\\{mark}", 1) + "\n"


class Parser(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags, self.texts, self.images = [], [], []

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    if tag == "img":
      self.images.append(dict(attributes))

  def handle_data(self, data):
    if data.strip() and self.tags[-1] != "style":
      self.texts.append(data.strip())


def test_html(tmp_path):
  (tmp_path / "a.png").write_bytes(b"picture")
  blocks = [
    pages.Heading(1, "Title"),
    pages.Paragraph(NASTY),
    pages.Bullets([NASTY]),
    pages.Table(("name", "x"), [(NASTY, "1")]),
    pages.Picture("a.png", NASTY),
  ]
  parser = Parser()
  parser.feed(pages.html_page(blocks, tmp_path))
  assert "script" not in parser.tags
  assert parser.texts == ["Title", "Title", NASTY, NASTY, "name", "x", NASTY, "1", NASTY]
  (image,) = parser.images
  data = image["src"].removeprefix("data:image/png;base64,")
  assert base64.b64decode(data) == b"picture"
  assert image["alt"] == NASTY
