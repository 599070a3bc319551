"""Byte-level BPE: training, encoding, special tokens, parity with the Hub format."""
