"""Experiments on reliability: what runs and files do when something goes wrong."""
