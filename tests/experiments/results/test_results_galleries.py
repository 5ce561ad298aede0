"""Paths of figures."""

import pathlib

import hypothesis
from hypothesis import strategies as st

from experiments.results import galleries


def test_no_path_is_given_twice(tmp_path):
  gallery = galleries.Gallery(tmp_path)
  assert gallery.path("vtab", "final") == tmp_path / "vtab-final.png"
  assert gallery.path("vtab", "final") == tmp_path / "vtab-final-2.png"
  assert gallery.path("VTAB", "../Final/") == tmp_path / "vtab-..-final.png"


def test_names_are_not_too_long_for_a_file(tmp_path):
  gallery = galleries.Gallery(tmp_path)
  names = {gallery.path("fewshot", "x" * 500 + end).name for end in "ab"}
  assert len(names) == 2
  assert max(map(len, names)) < 100


@hypothesis.given(
  st.lists(st.lists(st.sampled_from(["a", "2", "3", "a-2"]), min_size=1, max_size=3), max_size=12)
)
@hypothesis.example([["a"], ["a"], ["a", "2"], ["a"]])
def test_no_figure_is_overwritten_by_one_whose_name_ends_in_a_number(parts):
  gallery = galleries.Gallery(pathlib.Path("figures"))
  paths = [gallery.path(*one) for one in parts]
  assert len(set(paths)) == len(paths)
