"""head=keep: a head that is known to be of other classes than the data is no silent start."""

import json

import pytest
import running
import synthetic

from bit_jax import run_config, weights
from bit_jax.data import order
from bit_jax.runtime import errors
from bit_jax.training import setup

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def params():
  return synthetic.parameters("R14x0.5", 10)


@pytest.fixture
def head(tmp_path, params):
  """Returns a function that writes a run's network with some class names."""

  def write(names):
    weights.save(tmp_path / "earlier" / "model.npz", params)
    (tmp_path / "earlier" / "config.json").write_text(json.dumps({"model": "R14x0.5"}))
    (tmp_path / "earlier" / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return tmp_path / "earlier" / "model.npz"

  return write


def loaded(file, folder, weights_at=None):
  """Returns the warnings of a run on digits that keeps the head of a file."""
  config, data = run_config.prepare(running.config(f"weights={file},shots=3", head="keep"))
  layout = order.device_layout(config.batch_size, 4, mixup=True)
  return setup.load(config, data, folder, layout, weights_at=weights_at, began=0).data.warnings


def test_the_same_classes_are_silent(head, tmp_path):
  assert loaded(head(DIGITS), tmp_path) == []
  (tmp_path / "earlier" / "classes.txt").unlink()
  assert loaded(head(DIGITS), tmp_path) == []


def test_a_head_whose_classes_are_unknown_is_taken_as_it_is(tmp_path, params):
  weights.save(tmp_path / "mine.npz", params)
  assert loaded(tmp_path / "mine.npz", tmp_path) == []


def test_other_names_are_a_warning(head, tmp_path):
  (text,) = loaded(head(["zero", *DIGITS[1:]]), tmp_path)
  assert text.startswith(f"head=keep starts with the head of {tmp_path}/earlier/model.npz, whose ")
  assert "other names (zero, 1, 2, 3, 4 and 5 more) than those of the data (0, 1, 2, 3," in text


def test_another_order_is_an_error(head, tmp_path):
  file = head(reversed(DIGITS))
  for reference, weights_at in ((file, None), ("earlier/model.npz", str(file))):
    with pytest.raises(errors.UserError, match=r"another order \(9, 8, .* use head=zero"):
      loaded(reference, tmp_path, weights_at)
