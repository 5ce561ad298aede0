"""What is fuzzed: one kind of input, how inputs of it are made, and how one is checked.

Inputs are bytes. They are a function of (seed, kind, number), so each can be made again alone.
"""

import dataclasses
import pathlib
import random
from collections.abc import Callable, Sequence

from experiments.reliability.fuzz import mutation

CORPUS = pathlib.Path(__file__).with_name("corpus")


@dataclasses.dataclass(frozen=True)
class Target:
  """A kind of input.

  Attributes:
    seeds: Valid inputs, which are mutated.
    build: Returns an input of the kind's structure, with faults in it.
    check: Reads an input, given a folder to write to. Returns whether it was accepted; raises the
      error that users get, and an AssertionError where a value is wrong.
    tokens: Bytes with a meaning in this kind of input.
    memory: Bytes that reading one input may take.
  """

  seeds: Sequence[bytes]
  build: Callable[[random.Random], bytes]
  check: Callable[[bytes, pathlib.Path], bool]
  tokens: Sequence[bytes] = ()
  memory: int = 512 << 20

  def make(self, rng: random.Random, kept: Sequence[bytes] = ()) -> bytes:
    """Returns an input: built, or one of the seeds or of the `kept` inputs, mutated.

    Args:
      rng: What decides.
      kept: Inputs of the corpus.
    """
    kind = rng.random()
    if kind < 0.4:
      return self.build(rng)
    if kind < 0.5:
      return mutation.mutated(rng, self.build(rng), self.tokens)
    return mutation.mutated(rng, rng.choice([*self.seeds, *kept]), self.tokens)


def kept(kind: str) -> list[bytes]:
  """Returns the inputs of a kind in the corpus, in the order of their names."""
  return [path.read_bytes() for path in sorted((CORPUS / kind).glob("*"))]


def numbered(seed: int, kind: str, number: int) -> random.Random:
  """Returns what decides on input `number` of a kind."""
  return random.Random(f"{seed} {kind} {number}")
