"""Writes `docs/reliability.md` from the records: `python -m experiments.reliability`."""

from experiments.reliability import page

if __name__ == "__main__":
  page.write()
