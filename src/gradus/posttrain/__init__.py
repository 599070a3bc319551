"""Preference pairs from a model's own samples, and DPO."""
