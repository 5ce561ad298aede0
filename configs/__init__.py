"""Configs: one short file per data set; `base` holds every field."""
