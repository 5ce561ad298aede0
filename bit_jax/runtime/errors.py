"""The one exception for user errors, and texts that quote other errors."""

import re
import unicodedata

_REASON = 300  # characters of a message that are quoted
# Characters of a sentence: of a longer one, the ends, which say what is wrong and what to do.
_LONGEST, _START, _END = 2000, 1200, 700


class UserError(ValueError):
  """Bad input: its message is one clear sentence on what is wrong, where, and what to do.

  Command lines print the message without a traceback and exit with status 2; whoever calls the
  library catches it like any `ValueError`.
  """

  def __init__(self, message: str, *more: str):
    """Takes the message, and further lines where it lists something; they may quote anything.

    Each is shown as `one_line` returns it.
    """
    super().__init__("\n".join(map(one_line, (message, *more))))


def one_line(text: str) -> str:
  """Returns a text that may go to a terminal: of one line, and of 2,000 characters at most.

  Line breaks, and characters that control a terminal or are invisible, become escapes such as
  `\\n` and `\\x1b`. A longer text loses its middle.
  """
  shown = "".join(c if _is_visible(c) else repr(c)[1:-1] for c in text)
  return shown if len(shown) <= _LONGEST else f"{shown[:_START]} [...] {shown[-_END:]}"


def _is_visible(character: str) -> bool:
  # Python prints no spaces but the usual one; those of other widths do no harm.
  return character.isprintable() or unicodedata.category(character) == "Zs"


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
