"""Checks of the user's own images."""
