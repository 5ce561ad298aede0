"""Where images come from, which come when, and how they are augmented."""
