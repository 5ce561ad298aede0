"""The networks: their shapes as data, and ResNetV2 in Flax."""
