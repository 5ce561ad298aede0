"""Sweeps: files that yield runs, and the executors that run them locally or on a Slurm cluster."""
