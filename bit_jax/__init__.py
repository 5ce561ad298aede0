"""BigTransfer (BiT) fine-tuning in JAX and Flax."""
