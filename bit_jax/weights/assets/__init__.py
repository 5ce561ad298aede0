"""The checkpoint that the package carries, and its model card."""
