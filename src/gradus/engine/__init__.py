"""Inference: KV cache, sampling, batching, tools in the loop."""
