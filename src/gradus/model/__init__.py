"""The decoder: config, attention, transformer, cost, weights."""
