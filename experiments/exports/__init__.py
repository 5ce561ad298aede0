"""Exports, loaded by the runtimes that they are for."""
