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


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("a\nb\r\n.", r"a\nb\r\n."),
    ("\x1b[2J \u202e \0", r"\x1b[2J \u202e \x00"),
    ("a\udcff \u2028", r"a\udcff \u2028"),
    ("Über 日本\u3000語 🙂.", "Über 日本\u3000語 🙂."),
    (r"C:\new", r"C:\new"),
  ],
)
def test_the_message_of_a_user_error_is_one_visible_line(text, shown):
  assert str(errors.UserError(text)) == shown


def test_the_message_of_a_user_error_is_bounded():
  found = str(errors.UserError(f"{'x' * 99_999} can't be used: remove it."))
  assert len(found) < 2000
  assert found.startswith("xxx")
  assert found.endswith("xxx can't be used: remove it.")
  assert str(errors.UserError("x" * 2000)) == "x" * 2000
