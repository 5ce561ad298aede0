"""Linear probes: ridge regression on the frozen features of a network."""
