"""Measurements of a model: bits per byte and probes."""
