"""What a sweep noted of the attempts at a run (`experiments.sweeping.ledger`), or somebody did."""

import datetime
from typing import Any

from experiments.results import fields


def seconds(attempts: Any) -> float | None:
  """Returns the sum of the attempts' seconds; None if any of them isn't on record, or all are 0."""
  if not isinstance(attempts, list) or not attempts:
    return None
  taken = [fields.number(a.get("seconds")) if isinstance(a, dict) else None for a in attempts]
  known = [s for s in taken if s is not None]
  return fields.positive(sum(known)) if len(known) == len(taken) else None


def last_began(attempts: Any) -> datetime.datetime | None:
  """Returns when the last attempt began, with its time zone; None if that isn't on record."""
  last = attempts[-1] if isinstance(attempts, list) and attempts else None
  started = last.get("started") if isinstance(last, dict) else None
  try:
    began = datetime.datetime.fromisoformat(fields.text(started))
  except ValueError:
    return None
  return began if began.tzinfo else began.replace(tzinfo=datetime.UTC)
