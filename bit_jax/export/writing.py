"""Writes an export: its folder with the form's files, the class names and the model card."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from bit_jax.export import cards, checking, form
from bit_jax.inference import networks
from bit_jax.runtime import errors

CLASSES, CARD = "classes.txt", "README.md"
_FILE_SUFFIXES = (".npz", ".onnx", ".pb", ".safetensors", ".stablehlo")


@dataclasses.dataclass(frozen=True)
class Written:
  """One form of a network on disk.

  Attributes:
    form: Which.
    folder: Its folder.
    difference: What `checking.Check.difference` found.
  """

  form: form.Form
  folder: pathlib.Path
  difference: float | None


def require_new(folder: pathlib.Path) -> None:
  """Raises a `UserError` unless a folder doesn't exist or is empty."""
  if folder.suffix in _FILE_SUFFIXES:
    raise errors.UserError(
      f"An export is a folder (the model, its classes and its card), and {folder} is the name of a "
      f"file: give --out={folder.with_suffix('')}."
    )
  if os.path.realpath(folder) == os.path.realpath(os.curdir):
    raise errors.UserError(
      "An export can't be written to the current folder itself, which it would replace: name a new "
      "folder in it with --out=FOLDER."
    )
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise errors.UserError(
      f"{folder} exists: delete it, or choose another folder with --out=FOLDER."
    )


def write(
  network: networks.Network, forms: tuple[form.Form, ...], folder: pathlib.Path, command: str
) -> list[Written]:
  """Writes a network in some forms; the folder appears when all are written and compared.

  Args:
    network: A network in float32.
    forms: One form, or several that get a folder each.
    folder: A folder that doesn't exist or is empty.
    command: The command line of the export, for the card.

  Raises:
    UserError: The folder can't be written, a library that writes a form isn't installed, or one
      that reads it finds another network.
  """
  names = (n.encode("utf-8", "surrogateescape") for n in network.class_names)
  as_text = tuple(name.decode("utf-8", "replace") for name in names)  # as JSON needs it
  network = dataclasses.replace(network, class_names=as_text)
  written = []
  check = checking.Check(network)
  with _appearing(folder) as temporary:
    for one in forms:
      inner = temporary / one.name if len(forms) > 1 else temporary
      with _explained(folder):
        inner.mkdir(exist_ok=True)
        one.write(network, inner)
        lines = "".join(f"{name}\n" for name in as_text)
        (inner / CLASSES).write_text(lines, encoding="utf-8")
      apart = check.difference(one, inner)
      card = cards.card(network, one, inner, apart, command)
      with _explained(folder):
        (inner / CARD).write_text(card, encoding="utf-8")
      final = folder / one.name if len(forms) > 1 else folder
      written.append(Written(one, final, apart))
  return written


def report(written: Written) -> str:
  """Returns the lines that say what was written, and how it compares with the network."""
  files = "".join(f"  {line}\n" for line in cards.listing(written.form, written.folder))
  return f"{written.folder}:\n{files}{cards.checked(written.form, written.difference)}"


@contextlib.contextmanager
def _appearing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary folder that becomes `folder`; it is deleted if the block raises."""
  final = pathlib.Path(
    os.path.realpath(folder)
  )  # its last part may be `..`, or a link to an empty folder
  temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
  try:
    with _explained(folder):
      temporary.mkdir(parents=True)
    yield temporary
    with _explained(folder):
      if final.is_dir():
        final.rmdir()
      temporary.replace(final)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _explained(folder: pathlib.Path) -> Iterator[None]:
  """Turns an `OSError` of a block that only writes to `folder` into a `UserError`."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f"The export can't be written to {folder} ({e.strerror or e}): choose another folder with "
      f"--out=FOLDER, or make room."
    ) from e
