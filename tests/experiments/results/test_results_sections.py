"""Sections of the report, and its pages in Markdown and HTML: foreign text is text in both."""

import base64
import errno
import html.parser
import pathlib
import re

import hypothesis
import jinja2
import pytest
import run_folders
from hypothesis import strategies as st
from matplotlib.figure import Figure

from experiments import reduced
from experiments.results import collect, comparisons, sections

NASTY = 'a|b <script>alert("1")</script> *x* _y_ [z](u) `q` & &amp; \\ $5 to $9 oxford_iiit_pet'
TOP1 = {"top1": "top-1"}
RATES = {**TOP1, "macro_f1": "macro F1"}


@pytest.fixture(autouse=True)
def _without_drawing(monkeypatch):
  monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: path.write_bytes(b"picture"))


def few_shot(folder, *seeds, rates=TOP1, result=()):
  """Returns the section of 1, 5, ... examples per class, with as many seeds as are given."""
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots={shots},seed={seed}"), 0.5, {"result": result})
    for shots, count in zip((1, 5, 10), seeds, strict=False)
    for seed in range(count)
  ]
  panels = comparisons.panels(run_folders.table(folder / "runs", *runs))
  return sections.Sections(folder, rates).few_shot(panels)


def rows(table):
  """Returns the rows of a table, and its header before them."""
  whole = table.reset_index()
  return [tuple(whole.columns), *whole.itertuples(index=False, name=None)]


@pytest.mark.parametrize(("seeds", "said"), [((2, 2), False), ((1, 1), False), ((2, 2, 1), True)])
def test_a_caption_describes_hollow_marks_where_there_are_some(tmp_path, seeds, said):
  assert few_shot(tmp_path, *seeds).path.exists()
  assert ("hollow and dashed where there are fewer seeds" in page(tmp_path)) == said


def test_a_figure_that_cannot_be_drawn_is_left_out(tmp_path, monkeypatch, capsys):
  def fail(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(Figure, "savefig", fail)
  section = few_shot(tmp_path, 1, 1)
  assert section.path is None
  assert len(section.table) == 1
  error = capsys.readouterr().err
  assert "fewshot-cifar10-final.png" in error
  assert "No space left on device" in error


def test_every_rate_has_a_row_for_each_network(tmp_path):
  table = few_shot(tmp_path, 2, 1, rates=RATES, result={"macro_f1": 0.25}).table
  assert [tuple(map(str, row)) for row in rows(table)] == [
    ("data set", "network", "metric", "1-shot", "5-shot"),
    ("cifar10", "R14x0.5-CIFAR100", "top-1", "50.0 (50.0 to 50.0), 2 seeds", "50.0, 1 seed"),
    ("cifar10", "R14x0.5-CIFAR100", "macro F1", "25.0 (25.0 to 25.0), 2 seeds", "25.0, 1 seed"),
  ]


def test_a_rate_that_runs_have_not_recorded_is_not_available(tmp_path):
  table = few_shot(tmp_path, 1, 1, rates=RATES).table
  assert rows(table)[-1][2:] == ("macro F1", "not available", "not available")


def test_every_recipe_and_protocol_has_a_figure_of_its_own(tmp_path):
  runs = [
    (run_folders.reduced(f"model=R14x0.5,shots={shots},{more}", **fields), 0.5)
    for shots in (1, 5)
    for more, fields in (("seed=0", {}), ("protocol=select", {}), ("seed=0", {"base_lr": 0.01}))
  ]
  run_folders.written(tmp_path / "runs", *runs)
  text = page(tmp_path)
  assert text.count("](fewshot-cifar10-") == 3
  assert len(list(tmp_path.glob("fewshot-*.png"))) == 3


def test_means_of_seeds_are_shown_where_there_are_several(tmp_path):
  runs = [
    (run_folders.config(f"model=R14x0.5,seed={seed}{more}", "vtab/svhn"), 0.5 + seed / 100)
    for more, seeds in (("", 3), (",weights=none", 1))
    for seed in range(seeds)
  ]
  run_folders.written(tmp_path / "runs", *runs)
  text = page(tmp_path)
  ends = "| 50.0 (1 of 19) |  |", "| 51.0 (1 of 19) | 50.0 to 52.0, 3 seeds |"
  assert all(end in text for end in ends)
  assert "| svhn | natural | 50.0, 1 seed | 51.0 (50.0 to 52.0), 3 seeds |" in text


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
  run_folders.written(tmp_path / "runs", *runs)
  text = page(tmp_path)
  assert "| base_lr | mixup_alpha | top-1 | difference, same seeds |" in text
  found = re.findall(r"^\| ([\d.]+) \| ([\d.]+) \| .* \| (.*) \|$", text, re.M)
  assert {row[:2]: row[-1] for row in found} == {
    ("0.003", "0"): "reference",
    ("0.003", "0.1"): "-1.00",
    ("0.01", "0"): "-1.00, 1 of 2 seeds",
    ("0.03", "0"): "no seed in common",
  }


def released(arguments, top1):
  return run_folders.config(f"model=BiT-M-R50x1,{arguments}"), top1, {"sha": "f" * 64}


def test_a_verdict_or_a_note_on_why_there_is_none(tmp_path):
  like = [released(f"preset=readme_128,shots=1,seed={s}", t) for s, t in enumerate((0.5, 0.55))]
  run_folders.written(tmp_path / "runs", *like, released("preset=code,shots=5", 0.8))
  text = page(tmp_path)
  assert (
    "| cifar10 | 1-shot | BiT-M-R50x1, Jax | 54.1 (48.4 to 66.1) | 52.5 (50.0 to 55.0), 2 seeds "
    "| within the published spread |"
  ) in text
  assert (
    "| cifar10 | 5-shot | BiT-M-R50x1, Jax | 82.4 (76.7 to 85.4) | 80.0, 1 seed "
    "| none, not like with like: note 1 |"
  ) in text
  assert "- Note 1: preset code, theirs readme_128." in text
  assert "No value was published" not in text


def test_networks_without_published_values_are_named(tmp_path):
  run_folders.written(tmp_path / "runs", (run_folders.config("model=R14x0.5"), 0.5))
  assert "No value was published for R14x0.5-CIFAR100." in page(tmp_path)


@pytest.mark.parametrize(
  ("reason", "said"),
  [
    (reduced.REASON, reduced.REASON),
    ("it takes minutes", "it takes minutes)"),
    ("", "preset code; batch_size 64, crop 48, resize 56, total_steps 0.2"),
  ],
)
def test_a_title_gives_what_replaces_the_rule(tmp_path, reason, said):
  runs = [(run_folders.reduced(f"shots={n}", reason=reason), 0.5) for n in (1, 5)]
  run_folders.written(tmp_path / "runs", *runs)
  text = page(tmp_path)
  assert f"examples per class, not by the rule itself ({said}" in text
  assert "This is not the rule itself." in text


def test_a_title_by_the_rule_gives_no_reason(tmp_path):
  runs = [(run_folders.config(f"shots={n}", reason="I like it"), 0.5) for n in (1, 5)]
  run_folders.written(tmp_path / "runs", *runs)
  text = page(tmp_path)
  assert "examples per class, by the rule, preset code;" in text
  assert "I like it" not in text
  assert (
    "2 runs on cpu (Linux x86_64, 2 cores), 2026-11-22, median 272 images/s. "
    "Recipe: preset code, as the rule."
  ) in text


def test_runs_in_two_places_have_no_common_speed(tmp_path):
  machines = ("Linux x86_64, 1 core", "Linux x86_64, 2 cores")
  run_folders.written(
    tmp_path / "runs",
    *(
      (run_folders.config(f"model=R14x0.5,seed={seed}"), 0.5, {"environment": environment})
      for seed, machine in enumerate(machines)
      for environment in [{"machine": machine, "started": f"2026-11-2{seed}T00:00:00+00:00"}]
    ),
  )
  assert (
    "2 runs on cpu (Linux x86_64, 1 core) and cpu (Linux x86_64, 2 cores), "
    "2026-11-20 to 2026-11-21.\n"
  ) in page(tmp_path)


def test_no_path_is_given_twice(tmp_path):
  path = sections.Sections(tmp_path, {}).path
  assert path("vtab", "final") == tmp_path / "vtab-final.png"
  assert path("vtab", "final") == tmp_path / "vtab-final-2.png"
  assert path("VTAB", "../Final/") == tmp_path / "vtab-..-final.png"


def test_names_are_not_too_long_for_a_file(tmp_path):
  path = sections.Sections(tmp_path, {}).path
  names = {path("fewshot", "x" * 500 + end).name for end in "ab"}
  assert len(names) == 2
  assert max(map(len, names)) < 100


@hypothesis.given(
  st.lists(st.lists(st.sampled_from(["a", "2", "3", "a-2"]), min_size=1, max_size=3), max_size=12)
)
@hypothesis.example([["a"], ["a"], ["a", "2"], ["a"]])
def test_no_figure_is_overwritten_by_one_whose_name_ends_in_a_number(parts):
  path = sections.Sections(pathlib.Path("figures"), {}).path
  paths = [path(*one) for one in parts]
  assert len(set(paths)) == len(paths)


def page(folder, name="report.md"):
  """Returns the report of the runs in `folder / "runs"`; its figures go to `folder`."""
  return sections.pages(collect.collect(folder / "runs"), "runs", folder)[name]


BLOCKS = """
{{ heading(2, text) }}
{% call paragraph() %}{{ text }}{% endcall %}
{% call bullets() %}{% call item() %}{{ text }}{% endcall +%}
{% call item() %}- two{% endcall %}{% endcall %}
{% call table(["name"], ["x"]) %}{{ row([text], ["1"]) }}
{{ row(["c"], ["2"]) }}{% endcall %}
{{ picture(path, text) }}
"""


def rendered(tmp_path, kind, text, blocks=BLOCKS):
  """Returns a page of blocks in place of the report's sections."""
  (tmp_path / "a.png").write_bytes(b"picture")
  path = tmp_path / "a.png"
  templates = sections.environment()
  own = jinja2.DictLoader({"sections.jinja": blocks})
  templates = templates.overlay(loader=jinja2.ChoiceLoader([own, templates.loader]))
  return templates.get_template(f"report.{kind}.jinja").render(text=text, path=path)


def test_markdown(tmp_path):
  assert [line for line in rendered(tmp_path, "md", "a|b\nc").splitlines() if line] == [
    "## a|b c",
    "a|b c",
    "- a|b c",
    "- \\- two",
    "| name | x |",
    "| --- | ---: |",
    "| a\\|b c | 1 |",
    "| c | 2 |",
    "![a|b c](a.png)",
  ]


def test_foreign_text_is_no_markup():
  assert sections.markdown(NASTY) == (
    'a|b &lt;script>alert("1")&lt;/script> \\*x\\* \\_y\\_ \\[z\\](u) \\`q\\` & &amp;amp; \\\\ '
    "\\$5 to \\$9 oxford_iiit_pet"
  )


@pytest.mark.parametrize("text", ["# x", "> x", "- x", "+ x", "1. x", "12) x", "=== x"])
def test_neither_is_its_beginning(tmp_path, text):
  mark = next(c for c in text if not c.isdigit())
  lines = rendered(tmp_path, "md", text).splitlines()
  escaped = text.replace(mark, f"\\{mark}", 1)
  assert escaped in lines
  assert f"- {escaped}" in lines


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
  parser = Parser()
  parser.feed(rendered(tmp_path, "html", NASTY))
  assert "script" not in parser.tags
  texts = [NASTY, NASTY, NASTY, "- two", "name", "x", NASTY, "1", "c", "2", NASTY]
  assert parser.texts == texts
  (image,) = parser.images
  data = image["src"].removeprefix("data:image/png;base64,")
  assert base64.b64decode(data) == b"picture"
  assert image["alt"] == NASTY
