"""The checkpoint that the package carries, and the class names of released ones."""
