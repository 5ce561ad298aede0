"""Faults of files and disks, and how runs end after them."""
