"""Tests of bit_jax.runtime.arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.runtime import arguments, errors

SPECIFICATION = {
  "model": arguments.Argument("R50x1"),
  "shots": arguments.integer(None, 1),
  "preset": arguments.choice("code", ("code", "paper")),
  "path": arguments.Argument(None, takes_rest=True),
}
DEFAULTS = {"model": "R50x1", "shots": None, "preset": "code", "path": None}


@pytest.mark.parametrize(
  ("text", "changes"),
  [
    (None, {}),
    ("", {}),
    ("model=R101x3", {"model": "R101x3"}),
    ("shots=5,preset=paper", {"shots": 5, "preset": "paper"}),
    ("preset=paper,shots=5", {"shots": 5, "preset": "paper"}),
    ("path=~/a=b,c d/x:y.npz", {"path": "~/a=b,c d/x:y.npz"}),
    ("shots=1,path=/a,shots=2", {"shots": 1, "path": "/a,shots=2"}),
    ("model=a=b", {"model": "a=b"}),
    ("shots=3,", {"shots": 3}),
  ],
)
def test_values(text, changes):
  assert arguments.parse(text, SPECIFICATION) == {**DEFAULTS, **changes}


@pytest.mark.parametrize(("text", "value"), [("n=auto", "auto"), ("n=16", 16), (None, "auto")])
def test_a_number_or_a_word(text, value):
  assert arguments.parse(text, {"n": arguments.integer("auto", 1)}) == {"n": value}


@pytest.mark.parametrize("text", ["n=0", "n=all", "n=1.5"])
def test_neither_a_number_nor_the_word(text):
  with pytest.raises(errors.UserError, match="takes auto, or a whole number of at least 1"):
    arguments.parse(text, {"n": arguments.integer("auto", 1)})


def test_mistakes_name_what_the_keys_are():
  with pytest.raises(
    errors.UserError, match=r"Unknown oven option 'x'.* oven options are n, given"
  ):
    arguments.parse("x=1", {"n": arguments.integer(0, 0)}, "oven option")
  with pytest.raises(errors.UserError, match=r"The oven option n=y can't be used"):
    arguments.parse("n=y", {"n": arguments.integer(0, 0)}, "oven option")


@given(st.text())
def test_a_path_is_taken_as_it_is(path):
  assert arguments.parse(f"shots=2,path={path}", SPECIFICATION)["path"] == path


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_integers_have_a_minimum(value, minimum):
  specification = {"n": arguments.integer(0, minimum)}
  if value >= minimum:
    assert arguments.parse(f"n={value}", specification) == {"n": value}
  else:
    with pytest.raises(errors.UserError, match=f"a whole number of at least {minimum}"):
      arguments.parse(f"n={value}", specification)


@pytest.mark.parametrize(
  ("text", "facts"),
  [
    (
      "modle=R50x1",
      ("Unknown config argument 'modle'", "did you mean model?", "model, shots, preset"),
    ),
    ("zzz=1", ("Unknown config argument 'zzz'", "key=value")),
    ("R50x1", ("Unknown config argument 'R50x1'", "key=value")),
    (",shots=5", ("Unknown config argument ',shots'",)),
    ("shots", ("argument shots needs a value: shots=...",)),
    ("shots=5,shots=6", ("argument shots is given twice",)),
    ("shots=five", ("shots=five can't be used", "a whole number of at least 1")),
    ("shots=", ("shots= can't be used", "a whole number of at least 1")),
    ("shots=0", ("shots=0 can't be used", "a whole number of at least 1")),
    ("shots=1.5", ("shots=1.5 can't be used",)),
    ("preset=blog", ("preset=blog can't be used", "one of code, paper")),
  ],
)
def test_mistakes(text, facts):
  with pytest.raises(errors.UserError) as e:
    arguments.parse(text, SPECIFICATION)
  assert all(fact in str(e.value) for fact in facts)


def test_a_field_of_the_config_is_no_argument():
  with pytest.raises(errors.UserError, match=r"'batch_size': use --config\.batch_size=VALUE"):
    arguments.parse("batch_size=64", SPECIFICATION, fields=("batch_size", "dtype"))


@pytest.mark.parametrize(
  ("text", "value"), [("true", True), ("True", True), ("false", False), ("FALSE", False)]
)
def test_booleans(text, value):
  specification = {"flip": arguments.boolean()}
  assert arguments.parse("", specification) == {"flip": None}
  assert arguments.parse(f"flip={text}", specification)["flip"] is value


@pytest.mark.parametrize("text", ["", "0", "no", "falsch", "true "])
def test_what_is_neither_true_nor_false(text):
  with pytest.raises(errors.UserError, match=f"flip={text} can't be used: .* true or false"):
    arguments.parse(f"flip={text}", {"flip": arguments.boolean()})


def test_the_reason_of_an_argument_s_own_check_is_told():
  def check(text):
    raise errors.UserError(f"{text} was never released.")

  with pytest.raises(errors.UserError) as e:
    arguments.parse("model=X", {"model": arguments.Argument("", check)})
  assert str(e.value) == "The config argument model=X can't be used: X was never released."
