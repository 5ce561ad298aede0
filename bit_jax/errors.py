"""The one exception that stands for a user's mistake rather than a defect of this code."""


class UserError(ValueError):
  """Bad input: its message is one clear sentence on what is wrong, where, and what to do.

  Command lines print the message without a traceback and exit with status 2; whoever calls the
  library catches it like any `ValueError`.
  """
