"""requirements-oldest.lock: what `make test-oldest` installs is what pyproject.toml allows."""

import re
import tomllib

import pytest
import running
from packaging import requirements, utils, version

PROJECT = tomllib.loads((running.ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("tfds", "tensorboard", "experiments", "slurm", "hub", "onnx", "savedmodel", "notebooks")
DECLARED = [
  *PROJECT["dependencies"],
  *(r for extra in (*EXTRAS, "docs", "dev") for r in PROJECT["optional-dependencies"][extra]),
]
LOCKED = {
  utils.canonicalize_name(name): locked
  for name, locked in re.findall(
    r"^([\w.-]+)==(\S+)", (running.ROOT / "requirements-oldest.lock").read_text(), re.M
  )
}


@pytest.mark.parametrize("text", sorted(set(DECLARED)))
def test_the_locked_version_is_allowed(text):
  declared = requirements.Requirement(text)
  if declared.name == "bit_jax" or (declared.marker and not declared.marker.evaluate()):
    return
  assert LOCKED[utils.canonicalize_name(declared.name)] in declared.specifier


def test_most_are_the_lowest_that_is_allowed():
  """The others are those that another package needs in a later version."""
  lowest = 0
  for text in {*DECLARED}:
    declared = requirements.Requirement(text)
    locked = LOCKED.get(utils.canonicalize_name(declared.name))
    bounds = (s.version for s in declared.specifier if s.operator in (">=", "=="))
    lowest += any(locked and version.Version(b) == version.Version(locked) for b in bounds)
  assert lowest >= 30
