"""The memory traffic of a compiled program, counted in its optimised HLO.

A program is a sequence of kernels, the instructions of its entry computation. Each reads its
operands from the device's memory and writes its results there, whatever happens inside. That is
what is counted: the bytes of operands and results of every instruction, but of those that move
nothing (`_FREE`). A kernel that reads an operand twice, or finds it in a cache, is not told apart.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
_BITS = {"pred": 8, "token": 0}  # of types whose name doesn't end in their bits
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([\d,<=]*)\]")
_LINE = re.compile(r"^\s*(?:ROOT )?(%?[\w.-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|[\s)}\]])([a-z][\w-]*)\(")
_NAME = re.compile(r"%[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Kernel:
  """An instruction of the entry computation that moves bytes.

  Attributes:
    name: Its name, which says what XLA made it of, such as '%loop_convert_fusion.12'.
    opcode: Such as 'fusion'.
    bytes: Of its operands and results.
  """

  name: str
  opcode: str
  bytes: int


def kernels(hlo: str) -> Iterator[Kernel]:
  """Yields the kernels of an optimised HLO module, given as text."""
  sizes: dict[str, int] = {}
  for line in hlo.split("\nENTRY ", 1)[1].splitlines()[1:]:
    if line.startswith("}"):
      return
    if not (match := _LINE.match(line)):
      continue
    name, rest = match.groups()
    opcode = _OPCODE.search(rest)
    assert opcode, line
    sizes[name] = size_of(rest[: opcode.start(1)])
    if opcode[1] in _FREE:
      continue
    operands = _NAME.findall(_arguments(rest[opcode.end() :]))
    yield Kernel(name, opcode[1], sizes[name] + sum(sizes[operand] for operand in operands))


def size_of(shape: str) -> int:
  """Returns the bytes of a shape as HLO writes it, such as 'bf16[8,3]{1,0}' or a tuple of such."""
  return sum(
    math.prod(int(n.lstrip("<=")) for n in dimensions.split(",") if n) * _bits(kind) // 8
    for kind, dimensions in _SHAPE.findall(re.sub(r"\{[^}]*\}", "", shape))
  )


def _bits(kind: str) -> int:
  """Returns the bits of a number of a type such as 'f32', 'bf16', 'f8e4m3fn' or 'pred'."""
  digits = re.match(r"[a-z]+(\d+)", kind)
  return _BITS[kind] if kind in _BITS else int(digits[1]) if digits else 0


def _arguments(rest: str) -> str:
  """Returns the text up to the parenthesis that closes the one before it."""
  depth = 1
  for place, character in enumerate(rest):
    depth += (character == "(") - (character == ")")
    if not depth:
      return rest[:place]
  return rest


def by_kind(found: Iterable[Kernel]) -> list[tuple[str, int, int]]:
  """Returns (kind, kernels, bytes) of names without their numbers, most bytes first."""
  counts: collections.Counter[str] = collections.Counter()
  moved: collections.Counter[str] = collections.Counter()
  for kernel in found:
    kind = re.sub(r"[.\d]+$", "", kernel.name.lstrip("%"))
    counts[kind] += 1
    moved[kind] += kernel.bytes
  return [(kind, counts[kind], total) for kind, total in moved.most_common()]
