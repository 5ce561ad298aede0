"""The page builder: one valid file, whatever it is given."""

import html_check
import markupsafe
import pytest

from bit_jax.report import page

NASTY = "a\"b'<script>alert(1)</script>&amp;\x00\x0b\ufffe\udcff猫"
BODY = """
{% import "components.html.jinja" as c %}
{% for level in (1, 2, 3) %}{{ c.heading(level, text ~ level) }}{% endfor %}
{{ c.heading(2, "Two") }}{{ c.heading(2, "Three") }}
{% call c.paragraph() %}{{ text }}{% endcall %}
{% call c.bullets() %}{% call c.item() %}{{ text }}{% endcall %}{% endcall %}
{% call c.table([text], [text], text) %}{{ c.cells([text], [text]) }}{% endcall %}
{{ c.facts({text: text}) }}
{{ c.figures([(text, text, text)]) }}
{{ c.note(text) }}
{{ c.figure("data:image/png;base64,", text) }}
"""


def built(text):
  templates = page.environment()
  body = templates.from_string(BODY).render(text=text)
  return page.build(text, markupsafe.Markup(body))


def test_foreign_text_is_no_markup():
  templates = page.environment()
  templates.autoescape = True
  body = templates.from_string(BODY).render(text=NASTY)
  text = page.build(NASTY, markupsafe.Markup(body))
  reader = html_check.Reader(text)
  assert [tag for tag, _ in reader.tags].count("script") == 1
  assert not {"\x00", "\x0b", "\ufffe"} & set(text)
  shown = NASTY.translate(dict.fromkeys(map(ord, "\x00\x0b\ufffe"), "\ufffd"))
  shown = shown.replace("\udcff", "\\udcff")
  assert sum(shown in t for _, t in reader.texts) == 16  # title included
  text.encode("utf-8")


def test_sections_are_linked_where_there_are_several():
  reader = html_check.Reader(built("One"))
  links = [a["href"] for tag, a in reader.tags if tag == "a"]
  assert links == ["#one2", "#two", "#three"]
  assert page.build("T", markupsafe.Markup('<h2 id="a">a</h2>')).count("<nav") == 0


@pytest.mark.parametrize(
  ("text", "slug"), [("The Rule & me", "the-rule-me"), ("VTAB-1k", "vtab-1k")]
)
def test_ids(text, slug):
  assert page.environment().filters["slug"](text) == slug
