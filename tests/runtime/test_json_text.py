"""Tests of bit_jax.runtime.json_text."""

import json

import pytest

from bit_jax.runtime import json_text


@pytest.mark.parametrize("value", [{"a": [1, {"b": None}]}, [], "text", 0.5, None])
def test_values_are_those_of_json(value):
  assert json_text.parse(json.dumps(value)) == value


@pytest.mark.parametrize("depth", [51, 1000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_deep_nesting_is_refused(depth, brackets):
  opening, closing = brackets
  with pytest.raises(ValueError, match=r"nested too deeply|Expecting value"):
    json_text.parse(opening * depth + closing * depth)


def test_fifty_levels_are_read():
  assert json_text.parse("[" * 50 + "]" * 50)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "9" * 5000, "nul"])
def test_what_is_no_json_is_a_value_error(text):
  with pytest.raises(ValueError, match=r".+"):
    json_text.parse(text)
