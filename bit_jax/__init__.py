"""BigTransfer (BiT) fine-tuning in JAX and Flax.

    python -m bit_jax.train --config=configs/quickstart.py

The commands are `bit_jax.train`, `bit_jax.memory`, `bit_jax.data`, `bit_jax.weights` and
`bit_jax.models`; `docs/architecture.md` is a map of the packages below them.
"""
