"""`python -m bit_jax.models`: the sizes of all networks."""

import argparse
import sys
from collections.abc import Sequence

from bit_jax.models import architectures
from bit_jax.runtime import exits


def parameter_table() -> str:
  """Returns the parameter counts of all architectures as a text table."""
  rows = [f"{'architecture':<14}{'depths':<16}{'width':>5}{'features':>10}{'without head':>15}"]
  rows[0] += f"{'1,000 classes':>17}{'21,843 classes':>17}"
  for a in architectures.ARCHITECTURES.values():
    depths = "-".join(map(str, a.depths))
    body, small, large = (architectures.num_parameters(a, n) for n in (None, 1000, 21843))
    rows.append(
      f"{a.name:<14}{depths:<16}{a.width:>5g}{a.num_features:>10,}"
      f"{body / 1e6:>13.1f} M{small / 1e6:>15.1f} M{large / 1e6:>15.1f} M"
    )
  return "\n".join(rows)


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  description = "Prints the sizes of all networks."
  argparse.ArgumentParser("python -m bit_jax.models", description=description).parse_args(argv[1:])
  print(parameter_table())


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
