"""The one exception for user errors, and texts that quote other errors."""

import re

_REASON = 300  # characters of a message that are quoted


class UserError(ValueError):
  """Bad input: its message is one clear sentence on what is wrong, where, and what to do.

  Command lines print the message without a traceback and exit with status 2; whoever calls the
  library catches it like any `ValueError`.
  """


def reason(error: BaseException) -> str:
  """Returns an error's type and message in one line, for a sentence that quotes it."""
  text = " ".join(str(getattr(error, "strerror", None) or error).split())
  return f"{type(error).__name__}: {text[:_REASON]}" if text else type(error).__name__


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's message, without a full stop.

  For an unknown field of a config, ml_collections lists all other fields; the line names only it.
  """
  text = str(error).strip()
  if unknown := re.search(r'Key "(.*?)" does not exist and cannot be added', text):
    meant = re.search(r'Did you mean "(.*?)" instead', text)
    hint = f" (did you mean {meant[1]!r}?)" if meant else ""
    return f"the config has no field {unknown[1]!r}{hint}"
  return text.splitlines()[0].rstrip(".") if text else type(error).__name__
