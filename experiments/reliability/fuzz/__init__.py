"""Hostile input: `python -m experiments.reliability.fuzz`, or `make fuzz`."""
