"""One run: the training loop, its step, its memory, and how it is resumed."""
