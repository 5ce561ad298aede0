"""How a command ends: exit statuses, errors printed as one sentence, Ctrl-C and other signals.

A signal of `signals.ENDING` asks a run to stop, at once where nothing is unsaved; a second Ctrl-C
stops at once anywhere. After `nohup` a terminal that hangs up changes nothing.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from bit_jax.runtime import errors, machine_errors, output, signals

# Exit statuses; after another signal than Ctrl-C it is 128 and the signal's number.
USER_ERROR, INTERRUPTED = 2, 130
LOST = 75  # of a process that lost another one: it may be run again
_DEFECT = 1  # Python's own, after a traceback
_REPORT_IT = (
  "This is a bug in bit_jax or in a library: please report it with the lines above and the output "
  "of `python -m bit_jax.env`."
)


def run(
  main: Callable[[Sequence[str]], int | None], argv: Sequence[str], *, needs_reader: bool = True
) -> int:
  """Calls `main(argv)` and returns the exit status; prints user errors without a traceback.

  Args:
    main: Returns the exit status; None is 0.
    argv: The program's name, then its arguments.
    needs_reader: Whether the command's only purpose is its output: it then ends silently when
      nobody reads that any more. Other commands, which write files, continue.
  """
  status, message = 0, None
  if os.environ.get("HOME") == "":  # as good as none; Python would take it for the root folder
    del os.environ["HOME"]
  output.prepare()
  with (
    output.surviving(*(("stderr",) if needs_reader else ("stdout", "stderr"))),
    signals.listening() as listener,
  ):
    try:
      if listener is not None:
        listener.react(listener.usual)
      status = main(argv) or 0
      sys.stdout.flush()
    except errors.UserError as e:
      status, message = USER_ERROR, f"error: {e}"
    except Interrupted as e:
      status, message = 128 + signals.received(), str(e)
    except KeyboardInterrupt:
      number = signals.received()
      status, message = 128 + number, signals.unsaved(number)
    except Exception as e:
      if needs_reader and isinstance(e, BrokenPipeError):  # `... | head`
        output.discard(sys.stdout)
      elif sentence := machine_errors.sentence(e):
        status, message = USER_ERROR, f"error: {errors.one_line(sentence)}"
      else:
        status = _DEFECT
        e.add_note(_REPORT_IT)
        output.finish()  # threads may keep Python from doing so
        raise
    finally:
      if listener is not None:
        listener.finish(status)
    if message is not None:
      print(message, file=sys.stderr)
  output.finish()
  return status


def listen(sentence: str | None = None) -> None:
  """Lets a signal end this process at once; call before long imports.

  Args:
    sentence: Printed then, also when `run` is called, until a `StopRequest` says otherwise. Without
      one, `run` lets signals raise a KeyboardInterrupt.
  """
  output.prepare()
  signals.begin(None if sentence is None else lambda: sentence)


def leave(status: int) -> NoReturn:
  """Ends the process; after an error or a signal without waiting for anything.

  Threads may compile, download, or read from a disk that doesn't answer, and JAX's shutdown waits
  for other processes.
  """
  if status:
    output.finish()
    os._exit(status)
  sys.exit()


class Interrupted(Exception):  # noqa: N818 - not an error
  """A run stopped on request; the message says where, and how to resume."""
