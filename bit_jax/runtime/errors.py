"""The one exception that stands for a user's mistake rather than a defect of this code."""

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
