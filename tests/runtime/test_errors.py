"""Tests of bit_jax.runtime.errors."""

import pytest

from bit_jax.configs import quickstart
from bit_jax.runtime import errors


@pytest.mark.parametrize(
  ("name", "line"),
  [
    ("totl_steps", "the config has no field 'totl_steps' (did you mean 'total_steps'?)"),
    ("qqqqqqq", "the config has no field 'qqqqqqq'"),
  ],
)
def test_an_unknown_field_is_one_short_line(name, line):
  with pytest.raises(AttributeError) as e:
    setattr(quickstart.get_config(), name, 3)
  assert errors.first_line(e.value) == line


@pytest.mark.parametrize(
  ("error", "line"),
  [(ValueError("It is so.\nAnd more."), "It is so"), (KeyError(), "KeyError")],
)
def test_of_an_error_the_first_line_is_told(error, line):
  assert errors.first_line(error) == line
