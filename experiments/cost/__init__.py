"""Cost of runs: operations, device memory, disk and time."""
