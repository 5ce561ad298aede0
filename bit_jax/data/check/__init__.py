"""What is wrong with a user's own images."""
