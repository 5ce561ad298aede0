"""BigTransfer (BiT) fine-tuning in JAX and Flax.

    import bit_jax

    tuned = bit_jax.fine_tune("photos", model="R14x0.5")    # the run of `python -m bit_jax.train`
    classifier = bit_jax.load(tuned.folder)                 # or a checkpoint: a name or a file
    classifier.predict("new_photos")

Nothing else is imported before it is used, and no setting of JAX is changed. `docs/architecture.md`
is a map of the commands and of the packages below them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from bit_jax.api import Classifier, Evaluation, FineTuned, Prediction, fine_tune, load
  from bit_jax.runtime.errors import UserError

__all__ = [
  "Classifier",
  "Evaluation",
  "FineTuned",
  "Prediction",
  "UserError",
  "fine_tune",
  "load",
]


def __getattr__(name: str) -> Any:
  """Imports a name of the API when it is first used."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  home = "bit_jax.runtime.errors" if name == "UserError" else "bit_jax.api"
  value = getattr(importlib.import_module(home), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """Returns the names of the API beside those that are imported."""
  return sorted({*globals(), *__all__})
