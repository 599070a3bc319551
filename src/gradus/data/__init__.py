"""Documents and conversations on their way to a batch: sources, shards, packing, loading."""
