"""Paths of figures."""

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
