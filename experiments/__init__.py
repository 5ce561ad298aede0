"""Evidence: what runs of bit_jax show, as commands that can be run again."""
