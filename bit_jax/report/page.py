"""The page builder: one HTML file that needs no other, with style, contents and tables that sort.

It uses no network, works without JavaScript, and reads well on a phone, on paper and in the dark.
The components that its bodies are made of are macros in `templates/components.html.jinja`.
"""

import base64
import functools
import pathlib
import re
from typing import Any

import jinja2
import markupsafe

from bit_jax.report import values
from bit_jax.runtime import clock, phrases

HTML = ".html.jinja"  # templates with this ending escape what they are given
_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_HEADING = re.compile(r'<h2 id="([^"]*)">(.*?)</h2>', re.DOTALL)
_LONGEST_NAME = 60  # characters of a name in a table
# Characters that HTML allows no page to have.
_NOT_ALLOWED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def environment(*folders: pathlib.Path) -> jinja2.Environment:
  """Returns an environment of templates, in which the components of a page can be imported.

  Args:
    *folders: Where templates are searched first.
  """
  templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
    autoescape=lambda name: name is not None and name.endswith(HTML),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  templates.filters |= {
    "base64": lambda path: base64.b64encode(path.read_bytes()).decode(),
    "counted": phrases.counted,
    "duration": clock.format_seconds,
    "name": functools.partial(values.plain, longest=_LONGEST_NAME),
    "plain": values.plain,
    "slug": _slug,
  }
  return templates


def build(title: str, body: markupsafe.Markup) -> str:
  """Returns a page.

  Args:
    title: Of the page, as text.
    body: Its content. Links to its headings of the second level, of more than two, come before the
      first of them.
  """
  found = list(_HEADING.finditer(body))
  sections = [{"id": heading[1], "text": markupsafe.Markup(heading[2])} for heading in found]
  start = found[0].start() if found else len(body)
  text = _layout().render(title=title, beginning=body[:start], rest=body[start:], sections=sections)
  lines = (line.rstrip() for line in text.split("\n"))
  text = "\n".join(line for line in lines if line) + "\n"
  return _NOT_ALLOWED.sub("\ufffd", text.encode("utf-8", "backslashreplace").decode())


@functools.cache
def _layout() -> jinja2.Template:
  style, script = (
    markupsafe.Markup((_TEMPLATES / name).read_text("utf-8")) for name in ("page.css", "page.js")
  )
  return environment().get_template(f"page{HTML}", globals={"style": style, "script": script})


def _slug(text: Any) -> str:
  """Returns a text as the id of a heading."""
  return re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")
