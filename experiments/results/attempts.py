"""What a sweep noted of the attempts at a run (`experiments.ledger`), or somebody did."""

import datetime
from typing import Any

from experiments import ledger
from experiments.results import fields


def seconds(attempts: Any) -> float | None:
  """Returns the sum of the attempts' seconds; None if any of them isn't on record, or all are 0."""
  taken = [attempt["seconds"] for attempt in ledger.checked(attempts)]
  return None if None in taken else fields.positive(sum(taken))


def last_began(attempts: Any) -> datetime.datetime | None:
  """Returns when the last attempt began, with its time zone; None if that isn't on record."""
  noted = ledger.checked(attempts)
  return ledger.began(noted[-1]) if noted else None
