"""`import bit_jax` is light, and offers what `__all__` names."""

import importlib

import pytest

import bit_jax
from bit_jax.runtime import errors

LIGHT = """
import sys
before = set(sys.modules)
import bit_jax
dir(bit_jax)
bit_jax.UserError
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - sys.stdlib_module_names))
"""


def test_importing_it_and_catching_its_errors_imports_nothing_else(printed_by):
  assert printed_by(LIGHT) == "['bit_jax']\n"


def test_every_name_exists_and_is_listed():
  assert set(bit_jax.__all__) <= set(dir(bit_jax))
  for name in bit_jax.__all__:
    assert getattr(bit_jax, name).__doc__
  assert bit_jax.UserError is errors.UserError
  assert issubclass(bit_jax.UserError, ValueError)


def test_no_name_is_that_of_a_module():
  for name in bit_jax.__all__:
    with pytest.raises(ModuleNotFoundError):
      importlib.import_module(f"bit_jax.{name}")


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'bit_jax' has no attribute 'finetune'"):
    _ = bit_jax.finetune
