"""Exports of networks to other formats, each with its class names and a model card.

`python -m bit_jax.export RUN_OR_CHECKPOINT --to=FORMAT` writes a folder; `formats` lists the
formats.
"""
