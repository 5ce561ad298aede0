"""Reads a page: its texts, tables and pictures, and whether its tags and ids fit together."""

import html.parser

VOID = {"img", "meta", "link", "br", "path", "circle", "rect"}
FOREIGN = {"path", "circle", "rect"}  # of SVG, which may close themselves or not


class Reader(html.parser.HTMLParser):
  """What a page holds.

  Attributes:
    tags: (tag, attributes) of every element.
    texts: (tag around it, text) of every text but style and script.
    tables: {label of its box: rows of cells as text}.
  """

  def __init__(self, page):
    super().__init__()
    self.tags, self.texts, self.tables = [], [], {}
    self._open, self._box, self._row = [], None, None
    self.feed(page)
    self.close()
    assert self._open == []
    ids = [a["id"] for _, a in self.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for tag, a in self.tags if tag == "a"]
    assert {t.removeprefix("#") for t in targets} <= set(ids)
    for tag, attributes in self.tags:
      assert tag != "img" or attributes.get("alt"), attributes
      assert tag != "th" or attributes.get("scope") in ("col", "row")
      assert tag not in ("script", "link", "img") or not is_remote(attributes)

  def handle_starttag(self, tag, attributes):
    names = [name for name, _ in attributes]
    assert len(names) == len(set(names))
    self.tags.append((tag, dict(attributes)))
    if tag == "div" and "aria-label" in names:
      self._box = dict(attributes)["aria-label"]
    elif tag == "tr":
      self._row = []
    elif tag in ("td", "th"):
      self._row.append("")
    if tag not in VOID - FOREIGN:
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    assert tag in FOREIGN
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag
    if tag == "tr":
      self.tables.setdefault(self._box, []).append([cell.strip() for cell in self._row])
      self._row = None

  def handle_data(self, data):
    if self._row is not None and self._row:
      self._row[-1] += data
    if data.strip() and self._open[-1] not in ("style", "script"):
      self.texts.append((self._open[-1], " ".join(data.split())))

  @property
  def text(self):
    """All texts, in one line."""
    return " ".join(text for _, text in self.texts)

  def sources(self):
    """The pictures."""
    return [a["src"] for tag, a in self.tags if tag == "img"]


def is_remote(attributes):
  address = attributes.get("src") or attributes.get("href") or "data:"
  return not address.startswith("data:")
